//! A report as plain text.

use super::document::{Block, Cell, Figure, Table, numbers, sections};
use super::escape::plain;
use super::summary::Report;
use super::words;

/// Characters of a line of a paragraph.
const WIDTH: usize = 96;

/// Characters of the longest bar.
const BAR: u64 = 30;

/// The document.
pub fn render(report: &Report) -> String {
    let about = &report.about;
    let zone = &about.time_zone;
    let title = plain(&words::title(report)).into_owned();
    let mut text = format!("{title}\n{}\n\n", "=".repeat(title.chars().count()));
    text.push_str(&format!(
        "{}; times are in {}\nMade on {} by {} with xdpban {}\n",
        zone.period(about.from, about.to),
        zone.name(),
        zone.long(about.made_at),
        plain(&about.made_by),
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
    let rows: Vec<Vec<String>> = table.rows.iter().map(|row| row.iter().map(cell).collect()).collect();
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
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell));
            cells.max().unwrap_or(0).max(length(title))
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
        text.push_str(&format!("{}:\n", plain(caption)));
    }
    if table.columns.iter().any(|title| !title.is_empty()) {
        text.push_str(&line(&mut table.columns.iter().copied()));
        text.push_str(&line(
            &mut widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>().iter().map(String::as_str),
        ));
    }
    for row in &rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
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
        | Cell::Name(text) => plain(text).into_owned(),
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
    let mut text = String::new();
    let mut length = 0;
    for word in plain(paragraph).split(' ') {
        let word_length = word.chars().count();
        if length > 0 && length + 1 + word_length > WIDTH {
            text.push('\n');
            length = 0;
        } else if length > 0 {
            text.push(' ');
            length += 1;
        }
        text.push_str(word);
        length += word_length;
    }
    text.push('\n');
    text
}
