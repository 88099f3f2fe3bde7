//! The user names tried most, in bounded memory.

use std::collections::HashMap;

/// Names that are counted at once. When there are more, the half tried least is forgotten, so that a name counts for at
/// least what it was tried since it was last forgotten: those tried most are never among them for long.
const NAMES: usize = 65_536;

/// Bytes of a name that are kept.
const NAME: usize = 64;

/// Counts user names.
#[derive(Debug, Default)]
pub(super) struct Users {
    counts: HashMap<Box<[u8]>, u64>,
}

impl Users {
    /// Counts `attempts` as `name`.
    pub(super) fn add(&mut self, name: &[u8], attempts: u32) {
        let name = name.get(..NAME).unwrap_or(name);
        if let Some(count) = self.counts.get_mut(name) {
            *count += u64::from(attempts);
            return;
        }
        if self.counts.len() >= NAMES {
            self.forget_half();
        }
        self.counts.insert(name.into(), u64::from(attempts));
    }

    /// The names tried most and how often, at most so many of them, ties in the order of the alphabet.
    pub(super) fn most_tried(&self, most: usize) -> Vec<(String, u64)> {
        let mut names: Vec<(&[u8], u64)> =
            self.counts.iter().map(|(name, count)| (&**name, *count)).collect();
        names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        names.truncate(most);
        names.into_iter().map(|(name, count)| (String::from_utf8_lossy(name).into_owned(), count)).collect()
    }

    fn forget_half(&mut self) {
        let mut counts: Vec<u64> = self.counts.values().copied().collect();
        let middle = counts.len() / 2;
        let (_, median, _) = counts.select_nth_unstable(middle);
        let median = *median;
        let mut forget = middle;
        self.counts.retain(|_, count| {
            let goes = *count <= median && forget > 0;
            forget -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_tried_most_come_first() {
        let mut users = Users::default();
        for (name, attempts) in [("root", 3), ("admin", 1), ("root", 2), ("zoe", 1), ("\u{1b}", 0)] {
            users.add(name.as_bytes(), attempts);
        }
        assert_eq!(users.most_tried(3), [("root".into(), 5), ("admin".into(), 1), ("zoe".into(), 1)]);
    }

    #[test]
    fn a_flood_of_names_neither_fills_memory_nor_hides_those_tried_most() {
        let mut users = Users::default();
        for n in 0..400_000u32 {
            users.add(&n.to_be_bytes(), 1);
            if n % 100 == 0 {
                users.add(b"root", 1);
            }
            assert!(users.counts.len() <= NAMES);
        }
        assert_eq!(users.most_tried(1), [("root".into(), 4000)]);
        users.add(&[b'x'; 1000], 1);
        assert!(users.counts.keys().all(|name| name.len() <= NAME));
    }
}
