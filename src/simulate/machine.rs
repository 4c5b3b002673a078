use std::sync::Arc;

/// The memory of a node's card: which models are in it, and which goes first when another needs the room.
///
/// Where nobody says how much a model takes, or the card has, one at a time is in it.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    vram_mib: u64,
    /// The least recently used first, each with what it takes.
    resident: Vec<(Arc<str>, u64)>,
}

// === impl Memory ===

impl Memory {
    /// An empty one of so much, MiB; 0: nobody knows.
    pub fn new(vram_mib: u64) -> Self {
        Memory {
            vram_mib,
            resident: Vec::new(),
        }
    }

    /// Has a model in memory from now on; whether it had to be loaded.
    pub fn load(&mut self, model: &Arc<str>, mib: u64) -> bool {
        let at = self.resident.iter().position(|(known, _)| known == model);
        if let Some(at) = at {
            self.resident[at..].rotate_left(1);
            return false;
        }
        self.resident.push((model.clone(), mib));
        let known = self.vram_mib > 0 && self.resident.iter().all(|(_, mib)| *mib > 0);
        let taken = |resident: &[(Arc<str>, u64)]| resident.iter().map(|(_, mib)| mib).sum::<u64>();
        while self.resident.len() > 1 && (!known || taken(&self.resident) > self.vram_mib) {
            self.resident.remove(0);
        }
        true
    }

    /// The models that are in it, the least recently used first.
    pub fn resident(&self) -> impl Iterator<Item = &str> {
        self.resident.iter().map(|(model, _)| &**model)
    }

    /// Forgets all: the machine went down.
    pub fn clear(&mut self) {
        self.resident.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let mut memory = Memory::new(24);
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        assert!(memory.load(&a, 10) && memory.load(&b, 10));
        assert!(!memory.load(&a, 10), "it is there");
        assert!(memory.load(&c, 10), "in place of b");
        assert!(!memory.load(&a, 10));
        assert!(memory.load(&b, 10), "in place of c");
        assert!(memory.load(&c, 24) && memory.load(&a, 10), "alone");
    }

    #[test]
    fn of_what_nobody_knows_the_size_one_is_there_at_a_time() {
        let [a, b] = ["a", "b"].map(Arc::<str>::from);
        for (vram, takes) in [(0, 10), (24, 0)] {
            let mut memory = Memory::new(vram);
            assert!(memory.load(&a, takes) && !memory.load(&a, takes));
            assert!(memory.load(&b, takes) && memory.load(&a, takes));
        }
    }
}
