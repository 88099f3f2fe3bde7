//! `xdpban logtest`: lines through the very engine that the controller runs, with nothing behind it.

use std::io::{BufRead, Read, Write};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use xdpban_engine::change::Change;
use xdpban_engine::record::{Format, Record};
use xdpban_engine::time::Now;
use xdpban_engine::{Applied, Decision, Engine};

use super::line_clock::LineClock;
use super::table::{BAD, DIM, GOOD, STRONG, WARN, styled};
use super::{CliError, open};
use crate::clock;
use crate::config::Config;
use crate::control::wire;
use crate::host;
use crate::human::{self, printable};
use crate::source::{JournalEntry, MAX_LINE};

/// What a line was understood as. Field names are a contract.
#[derive(Debug, Serialize)]
struct Understood {
    line: u64,
    program: Option<String>,
    event: Option<String>,
    attack: bool,
    srcip: Option<IpAddr>,
    user: Option<String>,
    rule: Option<Rule>,
    decision: Option<Block>,
    /// What happened, in words.
    #[serde(skip)]
    meaning: Option<&'static str>,
    /// Why nothing is done where something could be.
    #[serde(skip)]
    idle: Option<String>,
}

#[derive(Debug, Serialize)]
struct Rule {
    id: u32,
    level: u8,
    groups: Vec<String>,
    description: String,
}

#[derive(Debug, Serialize)]
struct Block {
    action: &'static str,
    /// Which packets, and at what rate, where it is not simply all.
    #[serde(skip_serializing_if = "Option::is_none")]
    measure: Option<wire::Measure>,
    #[serde(skip)]
    described: String,
    target: String,
    timeout_s: Option<u64>,
}

/// `program`: the lines have no header and are messages of this program.
pub(super) fn run(
    config: Config,
    file: Option<&Path>,
    program: Option<&str>,
    json: bool,
) -> Result<(), CliError> {
    let path = file.unwrap_or(Path::new("-"));
    let mut input = open(path)?;
    let mut engine = Engine::new(config.policy);
    engine.set_host(&host::addresses()?);
    let real = clock::now();
    let reading = Reading { program, real: &real };
    let mut clock = LineClock::new(real);
    let mut out = anstream::stdout().lock();
    let mut line = Vec::new();
    for number in 1.. {
        let more = read_line(&mut input, &mut line)
            .map_err(|source| CliError::Read { what: path.display().to_string(), source })?;
        if !more {
            break;
        }
        let understood = understand(&mut engine, &mut clock, &reading, number, &line);
        if json {
            serde_json::to_writer(&mut out, &understood).map_err(std::io::Error::from)?;
            out.write_all(b"\n")?;
        } else {
            out.write_all(explain(&understood, &line).as_bytes())?;
        }
        // A program that feeds lines one by one waits for each answer.
        out.flush()?;
    }
    Ok(())
}

/// Reads the next line without its end, cut to [`MAX_LINE`] as the sources do; false at the end of the input.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let read = input.take(MAX_LINE as u64).read_until(b'\n', line)?;
    if line.pop_if(|last| *last == b'\n').is_none() && read == MAX_LINE {
        input.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

/// How lines are read.
struct Reading<'a> {
    /// The program whose messages they are; none: each line's header names its own.
    program: Option<&'a str>,
    real: &'a Now,
}

impl Reading<'_> {
    fn record<'l>(&'l self, line: &'l [u8]) -> Record<'l> {
        match self.program {
            None => Record::parse(line, Format::Syslog, self.real),
            Some("sshd") => Record::parse(line, Format::Bare, self.real),
            Some(program) => Record::of_program(line, program.as_bytes(), self.real),
        }
    }
}

fn understand(
    engine: &mut Engine,
    clock: &mut LineClock,
    reading: &Reading<'_>,
    number: u64,
    line: &[u8],
) -> Understood {
    let entry = JournalEntry::parse(line).filter(|_| reading.program.is_none());
    let record = match &entry {
        Some(entry) => entry.record(),
        None => reading.record(line),
    };
    let now = clock.at(record.time);
    engine.handle_timeout(now);
    let outcome = engine.handle(&record, line, now);
    let mut blocks = None;
    let idle = match &outcome.decision {
        Some(Decision::Block { target, timeout }) => {
            blocks = Some((*target, timeout.map(|timeout| timeout.as_secs())));
            None
        }
        Some(Decision::Standing { target }) => Some(format!("{target} is blocked already")),
        Some(Decision::Late { target }) => {
            Some(format!("the line is so old that the block of {target} would be over"))
        }
        Some(Decision::Refused { because, .. }) => Some(because.to_string()),
        None => None,
    };
    let event = outcome.event.as_ref();
    let mut understood = Understood {
        line: number,
        program: Some(text(record.program)).filter(|program| !program.is_empty()),
        event: event.map(|event| event.name().to_owned()),
        attack: event.is_some_and(|event| event.attack),
        srcip: outcome.source.or(event.and_then(|event| event.source)),
        user: event.and_then(|event| event.user.as_deref()).map(text),
        rule: outcome.rule.map(|rule| Rule {
            id: rule.id.0,
            level: rule.level,
            groups: rule.groups.clone(),
            description: rule.description.clone(),
        }),
        decision: None,
        meaning: event.map(|event| event.kind.meaning()),
        idle,
    };
    understood.decision = blocks.and_then(|(target, timeout_s)| {
        let measure = engine.block_of(&target)?.measure;
        Some(Block {
            action: measure.action.name(),
            measure: wire::Measure::of(measure),
            described: measure.to_string(),
            target: target.to_string(),
            timeout_s,
        })
    });
    settle(engine, now);
    understood
}

/// Answers the engine as a gate would that takes everything, so that what is blocked stays blocked for its time.
fn settle(engine: &mut Engine, now: Now) {
    while let Some(change) = engine.next_change() {
        if let Change::Block(block) | Change::Resume(block) = change {
            engine.applied(&block, Applied::Done, now);
        }
    }
}

fn explain(understood: &Understood, line: &[u8]) -> String {
    let shown: String = printable(&String::from_utf8_lossy(line)).chars().take(300).collect();
    let mut text = format!("{} {}\n", styled(DIM, &format!("{:>4}", understood.line)), shown);
    let mut say = |what: String| text.push_str(&format!("     {what}\n"));
    let Some(event) = &understood.event else {
        let program = understood.program.as_deref().unwrap_or("nobody");
        say(styled(DIM, &format!("from {}: nothing that xdpban knows", printable(program))));
        return text;
    };
    let mut what = format!("{}: {}", styled(STRONG, event), understood.meaning.unwrap_or_default());
    if let Some(user) = &understood.user {
        what.push_str(&format!(", user `{}`", printable(user)));
    }
    match understood.srcip {
        Some(address) => what.push_str(&format!(", from {}", styled(STRONG, &address.to_string()))),
        None => what.push_str(", from an address that the line does not tell"),
    }
    say(what);
    say(if understood.attack { styled(BAD, "an attack") } else { styled(GOOD, "no attack by itself") });
    if let Some(rule) = &understood.rule {
        say(format!("rule {}, level {}: {}", rule.id, rule.level, rule.description));
    }
    match (&understood.decision, &understood.idle) {
        (Some(block), _) => {
            let how_long = match block.timeout_s {
                Some(seconds) => format!("for {}", human::duration(Duration::from_secs(seconds))),
                None => "until unblocked".to_owned(),
            };
            say(styled(BAD, &format!("would {} {how_long}", what_of(block))));
        }
        (None, Some(idle)) => say(styled(WARN, &format!("would do nothing: {idle}"))),
        (None, None) => {}
    }
    text
}

/// What would be done to whom.
fn what_of(block: &Block) -> String {
    match &block.measure {
        None => format!("block {}", block.target),
        Some(_) => format!("set {} to {},", block.target, block.described),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_as_the_sources_cut_them() {
        let long = [vec![b'x'; MAX_LINE + 10], b"\nnext".to_vec()].concat();
        let mut input = std::io::Cursor::new(long);
        let mut line = Vec::new();
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line.len(), MAX_LINE);
        assert!(read_line(&mut input, &mut line).unwrap());
        assert_eq!(line, b"next");
        assert!(!read_line(&mut input, &mut line).unwrap());
    }
}
