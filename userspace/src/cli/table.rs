//! Text for a terminal: aligned columns, colours, and nothing in it that could move the cursor.

use anstyle::{AnsiColor, Style};

use crate::human::printable;

/// What stands out: the target of a line.
pub(super) const STRONG: Style = Style::new().bold();
/// What stands back.
pub(super) const DIM: Style = Style::new().dimmed();
/// What is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// What is blocked, or wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default();
/// What needs attention.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();

/// `text` in `style`. The stream that it is printed to takes the colours out again where it is no terminal.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Rows of cells, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Vec<(Style, String)>>,
}

impl Table {
    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (Style, String)>) {
        self.rows
            .push(cells.into_iter().map(|(style, text)| (style, printable(&text).into_owned())).collect());
    }

    /// The rows as lines, two spaces between the columns.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, (_, text)) in widths.iter_mut().zip(row) {
                *width = text.chars().count().max(*width);
            }
        }
        let mut lines = String::new();
        for row in &self.rows {
            for (column, ((style, text), width)) in row.iter().zip(&widths).enumerate() {
                lines.push_str(&styled(*style, text));
                if column + 1 < row.len() {
                    lines.push_str(&" ".repeat(width - text.chars().count() + 2));
                }
            }
            lines.push('\n');
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_and_tames_control_characters() {
        let mut table = Table::default();
        table.row([(Style::new(), "a".into()), (Style::new(), "b".into())]);
        table.row([(Style::new(), "long\x1b[2J\u{202e}".into()), (Style::new(), "c".into())]);
        assert_eq!(table.render(), "a          b\nlong\u{fffd}[2J\u{fffd}  c\n");
    }
}
