//! What a command wrote, bounded and fit to be shown.

/// Bytes that are kept of it.
const KEPT: usize = 4096;

/// The beginning of what a command wrote.
#[derive(Debug, Default)]
pub(super) struct Output {
    kept: Vec<u8>,
    left_out: u64,
}

impl Output {
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let (kept, left_out) = bytes.split_at(bytes.len().min(KEPT - self.kept.len()));
        self.kept.extend_from_slice(kept);
        self.left_out += left_out.len() as u64;
    }

    /// As text on which a terminal does nothing but show it, line ends kept.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.kept);
        let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
        let mut text: String = text.trim_end().chars().map(shown).collect();
        if self.left_out > 0 {
            text.push_str(&format!("\n… and {} bytes more", self.left_out));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_cut_and_printable() {
        let mut output = Output::default();
        output.add(b"one\x1b[31m\n");
        output.add("zwölf".as_bytes());
        output.add(b"\xff");
        assert_eq!(output.text(), "one\u{fffd}[31m\nzwölf\u{fffd}");
        for _ in 0..3 {
            output.add(&[b'x'; 4000]);
        }
        assert!(
            output.text().len() < KEPT + 64 && output.text().ends_with("bytes more"),
            "{}",
            output.text()
        );
    }
}
