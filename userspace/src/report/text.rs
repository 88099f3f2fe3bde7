//! A report as plain text.

use super::document::{Block, Cell, Figure, Table, numbers, sections};
use super::summary::Report;
use super::words;
use crate::human::printable;

/// Characters of a line of a paragraph.
const WIDTH: usize = 96;

/// Characters of a line of a cell.
const CELL: usize = 60;

/// Characters of a word that is divided where it is longer: not a hash.
const WORD: usize = 80;

/// Characters of the longest bar.
const BAR: u64 = 30;

/// The document.
pub fn render(report: &Report) -> String {
    let about = &report.about;
    let zone = &about.time_zone;
    let title = printable(&words::title(report)).into_owned();
    let mut text = format!("{title}\n{}\n\n", "=".repeat(title.chars().count()));
    text.push_str(&format!(
        "{}; times are in {}\nMade on {} by {} with xdpban {}\n",
        zone.period(about.from, about.to),
        zone.name(),
        zone.long(about.made_at),
        printable(&about.made_by),
        about.version,
    ));
    for (section, blocks) in sections(report) {
        let heading = format!("{}. {}", section.number(), section.title());
        text.push_str(&format!("\n\n{heading}\n{}\n", "-".repeat(heading.chars().count())));
        for block in &blocks {
            text.push('\n');
            match block {
                Block::Paragraph(paragraph) => text.push_str(&wrap(paragraph)),
                Block::Figures(figures) => text.push_str(&figures_table(figures)),
                Block::Timeline(table) | Block::Table(table) => text.push_str(&render_table(table)),
            }
        }
    }
    text
}

fn figures_table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.value.chars().count()).max().unwrap_or(0);
    figures.iter().map(|figure| format!("  {:>width$}  {}\n", figure.value, figure.name)).collect()
}

fn render_table(table: &Table) -> String {
    let lines_of = |row: &Vec<Cell>| row.iter().map(|of| wrapped(&cell(of), CELL)).collect();
    let rows: Vec<Vec<Vec<String>>> = table.rows.iter().map(lines_of).collect();
    let right: Vec<bool> = (0..table.columns.len())
        .map(|column| {
            table.rows.iter().filter_map(|row| row.get(column)).any(|c| matches!(c, Cell::Number(_)))
        })
        .collect();
    let length = |text: &str| text.chars().count();
    let widths: Vec<usize> = table
        .columns
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let lines = rows.iter().filter_map(|row| row.get(column)).flatten().map(|line| length(line));
            lines.max().unwrap_or(0).max(length(title))
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, width), right) in cells.zip(&widths).zip(&right) {
            let space = " ".repeat(width - length(cell));
            line.push_str("  ");
            line.push_str(&if *right { space + cell } else { cell.to_owned() + &space });
        }
        line.trim_end().to_owned() + "\n"
    };
    let mut text = String::new();
    if let Some(caption) = &table.caption {
        text.push_str(&format!("{}:\n", printable(caption)));
    }
    if table.columns.iter().any(|title| !title.is_empty()) {
        text.push_str(&line(&mut table.columns.iter().copied()));
        text.push_str(&line(
            &mut widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str),
        ));
    }
    for row in &rows {
        for number in 0..row.iter().map(Vec::len).max().unwrap_or(0) {
            let of_cell = |cell: &'_ Vec<String>| cell.get(number).map_or("", String::as_str).to_owned();
            let cells: Vec<String> = row.iter().map(of_cell).collect();
            text.push_str(&line(&mut cells.iter().map(String::as_str)));
        }
    }
    text
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Ours(text)
        | Cell::Time(text)
        | Cell::Number(text)
        | Cell::Code(text)
        | Cell::Theirs(text)
        | Cell::Name(text) => printable(text).into_owned(),
        Cell::Outcome(outcome) => words::outcome(*outcome).to_owned(),
        Cell::Bar(part, whole) => bar(*part, *whole),
        Cell::Sections(sections) => numbers(sections),
        Cell::Stack(cells) => cells.iter().map(self::cell).collect::<Vec<_>>().join("; "),
    }
}

/// A bar, at least a sign of one for what is not nothing.
pub(super) fn bar(part: u64, whole: u64) -> String {
    let eighths = u128::from(part) * u128::from(BAR) * 8 / u128::from(whole.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(0).max(usize::from(part > 0));
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    "█".repeat(eighths / 8) + rest.get(eighths % 8).unwrap_or(&"")
}

/// `paragraph` in lines of at most [`WIDTH`] characters, where its words are not longer.
fn wrap(paragraph: &str) -> String {
    wrapped(&printable(paragraph), WIDTH).join("\n") + "\n"
}

/// `text` in lines of at most `width` characters, where its words are not longer.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ').flat_map(pieces) {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > width {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += word_length;
        }
    }
    lines
}

/// `word` in pieces of at most [`WORD`] characters.
fn pieces(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(word);
    std::iter::from_fn(move || {
        let all = rest.take()?;
        let Some((end, _)) = all.char_indices().nth(WORD) else { return Some(all) };
        rest = Some(&all[end..]);
        Some(&all[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_makes_a_line_that_nobody_can_read() {
        let words = "a setting of some length; ".repeat(40);
        let unbroken = "x".repeat(500);
        let rows =
            [words, unbroken].map(|text| vec![Cell::Time("2026-10-01".to_owned()), Cell::Theirs(text)]);
        let table = Table { caption: None, columns: vec!["when", "what"], rows: rows.into() };
        let text = render_table(&table);
        assert!(text.lines().all(|line| line.chars().count() <= 2 + 10 + 2 + WORD), "{text}");
        assert_eq!(text.matches("setting").count(), 40);
        assert_eq!(text.matches('x').count(), 500);
        assert_eq!(text.matches("2026-10-01").count(), 2);
    }
}
