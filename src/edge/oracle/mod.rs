//! Second readings: what comes off the wire, read once more by plain and slow means.
//!
//! Tests and fuzzing hold the gateway's readers to them. They share no code with what they judge, look at all
//! bytes at once, and panic where the two differ.

pub(crate) mod chunks;
pub(crate) mod frames;
pub(crate) mod head;

/// Where to cut so that every piece has one byte.
fn everywhere(length: usize) -> Vec<usize> {
    (1..=length).collect()
}

/// Cuts in order, within the bytes, the last at their end.
fn in_order(cuts: &[usize], length: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (length + 1)).collect();
    cuts.push(length);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}
