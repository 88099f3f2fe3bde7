//! A report as Markdown, with the tables of GitHub's.

use super::document::{Block, Cell, Figure, Table, numbers, sections};
use super::escape::markdown;
use super::summary::Report;
use super::text::bar;
use super::words;
use crate::human::printable;

/// The document.
pub fn render(report: &Report) -> String {
    let about = &report.about;
    let zone = &about.time_zone;
    let mut text = format!("# {}\n\n", markdown(&words::title(report)));
    text.push_str(&format!(
        "**{}**; times are in {}.  \nMade on {} by {} with xdpban {}.\n",
        zone.period(about.from, about.to),
        zone.name(),
        zone.long(about.made_at),
        markdown(&about.made_by),
        about.version,
    ));
    for (section, blocks) in sections(report) {
        text.push_str(&format!("\n## {}. {}\n", section.number(), section.title()));
        for block in &blocks {
            text.push('\n');
            match block {
                Block::Paragraph(paragraph) => text.push_str(&format!("{}\n", printable(paragraph))),
                Block::Figures(figures) => text.push_str(&list(figures)),
                Block::Timeline(table) | Block::Table(table) => text.push_str(&render_table(table)),
            }
        }
    }
    text
}

fn list(figures: &[Figure]) -> String {
    figures.iter().map(|figure| format!("- **{}** {}\n", figure.value, figure.name)).collect()
}

fn render_table(table: &Table) -> String {
    let mut text = String::new();
    if let Some(caption) = &table.caption {
        text.push_str(&format!("{}:\n\n", printable(caption)));
    }
    text.push_str(&line(table.columns.iter().map(|title| (*title).to_owned())));
    let right = |column| {
        table.rows.iter().filter_map(|row| row.get(column)).any(|cell| matches!(cell, Cell::Number(_)))
    };
    text.push_str(&line(
        (0..table.columns.len()).map(|column| if right(column) { "---:" } else { "---" }.to_owned()),
    ));
    for row in &table.rows {
        text.push_str(&line(row.iter().map(cell)));
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Empty => String::new(),
        Cell::Ours(text) | Cell::Time(text) | Cell::Number(text) | Cell::Code(text) => {
            printable(text).into_owned()
        }
        Cell::Theirs(text) | Cell::Name(text) => markdown(text),
        Cell::Outcome(outcome) => words::outcome(*outcome).to_owned(),
        Cell::Bar(part, whole) => bar(*part, *whole),
        Cell::Sections(sections) => numbers(sections),
        Cell::Stack(cells) => {
            let cells: Vec<String> = cells.iter().map(self::cell).collect();
            cells.join("<br>")
        }
    }
}
