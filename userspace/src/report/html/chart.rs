//! The timeline as a picture: a bar for each step, divided by outcome.

use std::fmt::Write;

use super::super::escape::html;
use super::super::summary::{Report, TimelineStep};
use super::super::words;
use crate::human::{count, counted};
use crate::store::Outcome;

// The picture's own units; it is shown as wide as the page.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 4.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;

/// The widest bar, and the lowest piece of one that can be seen.
const WIDEST: f64 = 40.0;
const LOWEST: f64 = 2.0;

/// Labels below the axis, at most.
const LABELS: usize = 10;

/// From the axis up: what needs attention ends a bar, where it is seen best.
const ORDER: [Outcome; 6] =
    [Outcome::Expired, Outcome::InForce, Outcome::Done, Outcome::Lifted, Outcome::Refused, Outcome::Failed];

/// The picture and its legend.
pub(super) fn timeline(report: &Report) -> String {
    let steps = &report.timeline.steps;
    let step = report.timeline.step;
    let most = steps.iter().map(|step| step.outcomes.total()).max().unwrap_or(0);
    let (tick, top) = scale(most);
    let zone = &report.about.time_zone;
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let slot = width / float(steps.len().max(1) as u64);
    let bar = (slot * 0.74).min(WIDEST);
    let y = |value: u64| TOP + height * (1.0 - share(value, top));

    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"timeline-title timeline-description\">\n\
         <title id=\"timeline-title\">Responses by {step} of the incident, and outcome</title>\n\
         <desc id=\"timeline-description\">{}</desc>\n",
        html(&description(report, most)),
    );
    let mut draw = |shape: std::fmt::Arguments<'_>| {
        // To write into a string cannot fail.
        svg.write_fmt(shape).ok();
    };
    for value in (0..=top / tick).map(|times| times * tick) {
        let (y, class) = (y(value), if value == 0 { "axis" } else { "grid" });
        draw(format_args!(
            "<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            count(value),
        ));
    }
    let every = steps.len().div_ceil(LABELS).max(1);
    for (place, TimelineStep { from, outcomes, .. }) in steps.iter().enumerate() {
        let middle = LEFT + slot * (float(place as u64) + 0.5);
        if place % every == 0 {
            draw(format_args!(
                "<text class=\"tick\" x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n",
                HEIGHT - 8.0,
                html(&zone.step_in_short(step, *from)),
            ));
        }
        if outcomes.total() == 0 {
            continue;
        }
        let parts: Vec<String> = ORDER
            .into_iter()
            .filter(|outcome| outcomes.of(*outcome) > 0)
            .map(|outcome| format!("{} {}", count(outcomes.of(outcome)), words::outcome(outcome)))
            .collect();
        let name = format!("{}: {}", zone.step(step, *from), parts.join(", "));
        draw(format_args!("<g><title>{}</title>", html(&name)));
        let mut foot = y(0);
        for outcome in ORDER.into_iter().filter(|outcome| outcomes.of(*outcome) > 0) {
            let tall = (height * share(outcomes.of(outcome), top)).max(LOWEST);
            foot -= tall;
            draw(format_args!(
                "<rect class=\"{}\" x=\"{:.1}\" y=\"{foot:.1}\" width=\"{bar:.1}\" height=\"{tall:.1}\"/>",
                outcome.name(),
                middle - bar / 2.0,
            ));
        }
        draw(format_args!("</g>\n"));
    }
    svg.push_str("</svg>\n");
    svg + &legend(report)
}

fn legend(report: &Report) -> String {
    let items: String = ORDER
        .into_iter()
        .filter(|outcome| report.outcomes.of(*outcome) > 0)
        .map(|outcome| {
            let (class, name, number) =
                (outcome.name(), words::outcome(outcome), count(report.outcomes.of(outcome)));
            format!("<li><span class=\"tag {class}\">{name}</span> <b>{number}</b></li>\n")
        })
        .collect();
    format!("<ul class=\"legend\" aria-label=\"Outcomes\">\n{items}</ul>\n")
}

/// What those who cannot see it are told.
fn description(report: &Report, most: u64) -> String {
    let busiest = report.timeline.steps.iter().find(|step| step.outcomes.total() == most);
    let busiest = busiest.map_or(String::new(), |step| {
        let name = report.about.time_zone.step(report.timeline.step, step.from);
        format!(" The most were {} ({name}).", count(most))
    });
    let number = counted(report.totals.responses, "response");
    let steps = counted(report.timeline.steps.len() as u64, &report.timeline.step.to_string());
    format!("A bar chart of {number} over {steps}.{busiest} The table below it has all numbers.")
}

/// The distance of ticks and the top of an axis that reaches `most`: a few ticks at round numbers.
fn scale(most: u64) -> (u64, u64) {
    let mut decade = 1_u64;
    loop {
        for tick in [1, 2, 5].map(|digit| decade.saturating_mul(digit)) {
            let ticks = most.div_ceil(tick).max(1);
            if ticks <= 5 {
                return (tick, tick.saturating_mul(ticks));
            }
        }
        decade = decade.saturating_mul(10);
    }
}

/// `part` of `whole`, from 0 to 1.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    float(part) / float(whole.max(1))
}

#[allow(clippy::cast_precision_loss, reason = "a picture is not that exact")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (most, scale_of_it) in [
            (0, (1, 1)),
            (1, (1, 1)),
            (5, (1, 5)),
            (6, (2, 6)),
            (23, (5, 25)),
            (99, (20, 100)),
            (31_204, (10_000, 40_000)),
        ] {
            assert_eq!(scale(most), scale_of_it, "{most}");
        }
        let (tick, top) = scale(u64::MAX);
        assert!(top / tick <= 5);
    }
}
