//! A JPEG of flat squares, 8 by 8: real enough for any viewer, and cheap enough for a preview at every step.
//!
//! Baseline, three components of the same size, and of each square only its mean (the DC coefficient). The quantiser of that is
//! 8, which makes it the plain mean less 128.
//! Source: ITU-T T.81, annexes B and F.

/// The codes for how many bits a difference of means has: 0 to 8, all four bits long.
const DC_BITS: u32 = 4;

/// Encodes `columns` by `rows` squares, each of the colour that `color` gives it.
pub(crate) fn jpeg(columns: u16, rows: u16, color: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let mut out = head(columns * 8, rows * 8);
    let mut bits = Bits::default();
    let mut last = [0; 3];
    for y in 0..u32::from(rows) {
        for x in 0..u32::from(columns) {
            for (last, now) in last.iter_mut().zip(luma_and_chroma(color(x, y))) {
                bits.difference(now - *last);
                *last = now;
                // No AC coefficient: the only code of that table.
                bits.push(0, 1);
            }
        }
    }
    out.extend(bits.end());
    out.extend([0xff, 0xd9]);
    out
}

fn luma_and_chroma([r, g, b, _]: [u8; 4]) -> [i32; 3] {
    let [r, g, b] = [r, g, b].map(i32::from);
    let luma = (299 * r + 587 * g + 114 * b) / 1000;
    [luma - 128, (b - luma) * 564 / 1000, (r - luma) * 713 / 1000]
}

fn head(width: u16, height: u16) -> Vec<u8> {
    let mut out = vec![0xff, 0xd8];
    segment(&mut out, 0xe0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0");
    let mut quantisers = vec![0];
    quantisers.extend([8; 64]);
    segment(&mut out, 0xdb, &quantisers);
    let [h, w] = [height.to_be_bytes(), width.to_be_bytes()];
    let frame = [
        8, h[0], h[1], w[0], w[1], 3, 1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0,
    ];
    segment(&mut out, 0xc0, &frame);
    let mut dc = vec![0, 0, 0, 0, 9];
    dc.extend([0; 12]);
    dc.extend(0..9);
    segment(&mut out, 0xc4, &dc);
    let mut ac = vec![0x10, 1];
    ac.extend([0; 16]);
    segment(&mut out, 0xc4, &ac);
    segment(&mut out, 0xda, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]);
    out
}

fn segment(out: &mut Vec<u8>, marker: u8, body: &[u8]) {
    out.extend([0xff, marker]);
    out.extend((body.len() as u16 + 2).to_be_bytes());
    out.extend(body);
}

#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits {
    fn difference(&mut self, difference: i32) {
        let size = 32 - difference.unsigned_abs().leading_zeros();
        self.push(size, DC_BITS);
        let low = if difference < 0 {
            difference - 1
        } else {
            difference
        };
        self.push(low as u32 & ((1 << size) - 1), size);
    }

    fn push(&mut self, bits: u32, count: u32) {
        self.held = self.held << count | bits;
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.bytes.push(byte);
            if byte == 0xff {
                self.bytes.push(0);
            }
            self.held &= (1 << self.count) - 1;
        }
    }

    fn end(mut self) -> Vec<u8> {
        if self.count > 0 {
            let missing = 8 - self.count;
            self.push((1 << missing) - 1, missing);
        }
        self.bytes
    }
}
