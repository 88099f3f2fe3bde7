//! A report as HTML: one file, with nothing outside of it and no script, for screens and for paper.

mod chart;

use std::fmt::Write;

use super::document::{Block, Cell, Figure, Table, sections};
use super::escape::html;
use super::requirements::Section;
use super::summary::Report;
use super::words;

const STYLE: &str = include_str!("style.css");

/// The document.
pub fn render(report: &Report) -> String {
    let about = &report.about;
    let zone = &about.time_zone;
    let title = html(&words::title(report));
    let period = html(&zone.period(about.from, about.to));
    // The policy is the second line of defence: what is not escaped as it should be can still load and run nothing.
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}, {period}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<p class=\"kicker\">Security incident report</p>\n<h1>{title}</h1>\n\
         <p class=\"period\">{period}</p>\n<dl class=\"made\">\n"
    );
    for (name, value) in [
        ("Made on", zone.long(about.made_at)),
        ("Made by", about.made_by.clone()),
        ("With", format!("xdpban {}", about.version)),
        ("Times are in", zone.name()),
    ] {
        push(&mut page, format_args!("<div><dt>{name}</dt><dd>{}</dd></div>\n", html(&value)));
    }
    page.push_str("</dl>\n</header>\n<nav aria-label=\"Contents\">\n<ol>\n");
    for section in Section::ALL {
        push(&mut page, format_args!("<li><a href=\"#{}\">{}</a></li>\n", section.id(), section.title()));
    }
    page.push_str("</ol>\n</nav>\n<main>\n");
    for (section, blocks) in sections(report) {
        let (id, number, title) = (section.id(), section.number(), section.title());
        push(
            &mut page,
            format_args!("<section id=\"{id}\">\n<h2><span class=\"number\">{number}</span>{title}</h2>\n"),
        );
        for block in &blocks {
            push_block(&mut page, report, block);
        }
        page.push_str("</section>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // To write into a string cannot fail.
    page.write_fmt(text).ok();
}

fn push_block(page: &mut String, report: &Report, block: &Block) {
    match block {
        Block::Paragraph(paragraph) => push(page, format_args!("<p>{}</p>\n", with_code(paragraph))),
        Block::Figures(figures) => push_figures(page, figures),
        Block::Timeline(table) => {
            page.push_str("<figure>\n");
            page.push_str(&chart::timeline(report));
            page.push_str("<details>\n<summary>The same as a table</summary>\n");
            push_table(page, table);
            page.push_str("</details>\n</figure>\n");
        }
        Block::Table(table) => push_table(page, table),
    }
}

/// A paragraph, in which what stands between backquotes is code.
fn with_code(paragraph: &str) -> String {
    let parts = paragraph.split('`').enumerate().map(|(place, part)| match place % 2 {
        0 => html(part),
        _ => format!("<code>{}</code>", html(part)),
    });
    parts.collect()
}

fn push_figures(page: &mut String, figures: &[Figure]) {
    page.push_str("<dl class=\"figures\">\n");
    for Figure { value, name } in figures {
        push(page, format_args!("<div><dt>{}</dt><dd>{}</dd></div>\n", html(name), html(value)));
    }
    page.push_str("</dl>\n");
}

/// Columns from which on a table is set in small type.
const LONG: usize = 8;

/// Rows up to which a table is kept on one page.
const SHORT: usize = 16;

fn push_table(page: &mut String, table: &Table) {
    let short = if table.rows.len() <= SHORT { " short" } else { "" };
    let long = if table.columns.len() >= LONG { " class=\"long\"" } else { "" };
    push(page, format_args!("<div class=\"wide{short}\">\n<table{long}>\n"));
    if let Some(caption) = &table.caption {
        push(page, format_args!("<caption>{}</caption>\n", html(caption)));
    }
    if table.columns.iter().any(|title| !title.is_empty()) {
        page.push_str("<thead>\n<tr>");
        for (column, title) in table.columns.iter().enumerate() {
            let is_number = |row: &Vec<Cell>| matches!(row.get(column), Some(Cell::Number(_)));
            let number = if table.rows.iter().any(is_number) { " class=\"n\"" } else { "" };
            match *title {
                // Of a column of bars, which say nothing that the numbers beside them do not.
                "" => page.push_str("<td></td>"),
                title => push(page, format_args!("<th scope=\"col\"{number}>{}</th>", html(title))),
            }
        }
        page.push_str("</tr>\n</thead>\n");
    }
    page.push_str("<tbody>\n");
    for row in &table.rows {
        page.push_str("<tr>");
        for (place, cell) in row.iter().enumerate() {
            push_cell(page, cell, place == 0);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody>\n</table>\n</div>\n");
}

fn push_cell(page: &mut String, cell: &Cell, first: bool) {
    let class = match cell {
        Cell::Number(_) => "n",
        Cell::Time(_) => "t",
        Cell::Bar(..) => "bar",
        Cell::Stack(_) => "stack",
        _ => "",
    };
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    let (open, close) = if first { ("th scope=\"row\"", "th") } else { ("td", "td") };
    push(page, format_args!("<{open}{class}>"));
    push_content(page, cell);
    push(page, format_args!("</{close}>"));
}

fn push_content(page: &mut String, cell: &Cell) {
    match cell {
        Cell::Empty => {}
        Cell::Ours(text) | Cell::Number(text) | Cell::Time(text) | Cell::Theirs(text) => {
            page.push_str(&html(text));
        }
        Cell::Code(text) | Cell::Name(text) => {
            push(page, format_args!("<span class=\"code\">{}</span>", html(text)));
        }
        Cell::Outcome(outcome) => push(
            page,
            format_args!("<span class=\"tag {}\">{}</span>", outcome.name(), words::outcome(*outcome)),
        ),
        Cell::Bar(part, whole) => {
            let width = chart::share(*part, *whole) * 100.0;
            let width = if *part > 0 { width.max(0.5) } else { 0.0 };
            push(
                page,
                format_args!(
                    "<svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                     <rect width=\"{width:.1}\" height=\"10\"/></svg>"
                ),
            );
        }
        Cell::Sections(sections) => {
            for (place, section) in sections.iter().enumerate() {
                let comma = if place > 0 { ", " } else { "" };
                push(page, format_args!("{comma}<a href=\"#{}\">{}</a>", section.id(), section.number()));
            }
        }
        Cell::Stack(cells) => {
            for (place, cell) in cells.iter().enumerate() {
                match cell {
                    cell if place == 0 => push_content(page, cell),
                    cell => {
                        let whole = if matches!(cell, Cell::Time(_)) { " t" } else { "" };
                        push(page, format_args!("<span class=\"also{whole}\">"));
                        push_content(page, cell);
                        page.push_str("</span>");
                    }
                }
            }
        }
    }
}
