//! The plot of the document: what each contestant drops, as a part of the limit.

use std::fmt::Write as _;

use anyhow::Result;

use super::report::{Group, LIMIT, Measured, Report};

const ROW: usize = 34;
const LEFT: usize = 230;
const WIDTH: usize = 430;
const TOP: usize = 56;

/// Whose packets, how it is called, and its colour: they are told apart also without colours.
const SERIES: [(&str, &str, &str); 2] =
    [("one", "one source", "#1f4e79"), ("random", "random sources", "#9ec5e8")];

/// An SVG that needs nothing else.
#[expect(clippy::cast_precision_loss, reason = "a few hundred pixels")]
pub(super) fn svg(report: &Report) -> Result<String> {
    let names = report.names(Group::Drop, 1);
    let height = TOP + names.len() * ROW + 30;
    let total = LEFT + WIDTH + 60;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {total} {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{total}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">Packets dropped a second, as a part of what a bare XDP_DROP drops</text>\n"
    );
    for (number, (_, label, colour)) in SERIES.iter().enumerate() {
        let x = LEFT + number * 130;
        writeln!(svg, "<rect x=\"{x}\" y=\"32\" width=\"11\" height=\"11\" fill=\"{colour}\"/>")?;
        writeln!(svg, "<text x=\"{}\" y=\"42\">{label}</text>", x + 16)?;
    }
    for tenth in (0..=10).step_by(2) {
        let x = LEFT + WIDTH * tenth / 10;
        let bottom = height - 26;
        writeln!(svg, "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#ddd\"/>")?;
        writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{:.1}</text>",
            bottom + 16,
            tenth as f64 / 10.0
        )?;
    }
    for (number, name) in names.into_iter().enumerate() {
        let y = TOP + number * ROW;
        writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>", LEFT - 8, y + 20)?;
        for (line, (kind, _, colour)) in SERIES.iter().enumerate() {
            let what = Measured::drop(name, kind, 1);
            let (Some(rate), Some(ratio)) =
                (report.figure(what), report.ratio(what, Measured::drop(LIMIT, kind, 1)))
            else {
                continue;
            };
            let (y, width) = (y + 4 + line * 13, ratio * WIDTH as f64);
            writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.0}\" height=\"12\" fill=\"{colour}\"/>"
            )?;
            let label = LEFT as f64 + width + 4.0;
            writeln!(
                svg,
                "<text x=\"{label:.0}\" y=\"{}\" font-size=\"11\">{:.2} M</text>",
                y + 10,
                rate / 1e6
            )?;
        }
    }
    svg += "</svg>\n";
    Ok(svg)
}
