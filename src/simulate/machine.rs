use std::sync::Arc;

/// The memory of a node's card: which models are in it, and which goes first when another needs the room.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    vram_mib: u64,
    /// The least recently used first, each with what it takes.
    resident: Vec<(Arc<str>, u64)>,
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(vram_mib: u64) -> Self {
        Memory {
            vram_mib,
            resident: Vec::new(),
        }
    }

    /// Has a model in memory from now on; whether it had to be loaded.
    pub(super) fn load(&mut self, model: &Arc<str>, mib: u64) -> bool {
        let at = self.resident.iter().position(|(known, _)| known == model);
        if let Some(at) = at {
            self.resident[at..].rotate_left(1);
            return false;
        }
        let taken = |resident: &[(Arc<str>, u64)]| resident.iter().map(|(_, mib)| mib).sum::<u64>();
        while !self.resident.is_empty() && taken(&self.resident) + mib > self.vram_mib {
            self.resident.remove(0);
        }
        self.resident.push((model.clone(), mib));
        true
    }

    /// Forgets all: the machine went down.
    pub(super) fn clear(&mut self) {
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
}
