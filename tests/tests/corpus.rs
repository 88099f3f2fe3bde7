//! The corpus of lines that real sshds wrote (see `tests/corpus/README.md`): what is known of each by construction is what
//! `xdpban logtest` finds.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use xdpban_tests::Lab;

/// A line, and what is known of it; what is none is not stated.
#[derive(Debug, Deserialize)]
struct Known {
    line: String,
    attack: Option<bool>,
    srcip: Option<String>,
    user: Option<String>,
    rule_id: Option<u64>,
    scenario: String,
    sshd: String,
    pam: bool,
}

impl Known {
    /// What `answer` has otherwise than stated.
    fn faults(&self, answer: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        let mut compare = |what: &str, stated: Option<Value>, found: &Value| {
            if let Some(stated) = stated.filter(|stated| stated != found) {
                faults.push(format!("{what} is {found}, not {stated}: {}", self.line));
            }
        };
        compare("attack", self.attack.map(Value::from), &answer["attack"]);
        compare("rule", self.rule_id.map(Value::from), &answer["rule"]["id"]);
        compare("user", self.user.clone().map(Value::from), &answer["user"]);
        // A line that says nothing of its source may be known for its connection's, and never for another's.
        if self.attack == Some(true) || !answer["srcip"].is_null() {
            compare("srcip", self.srcip.clone().map(Value::from), &answer["srcip"]);
        }
        faults
    }
}

fn corpus() -> Result<Vec<Known>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/sshd.jsonl");
    let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

#[test]
fn every_line_is_what_it_is_known_to_be() -> Result<()> {
    let lab = Lab::new()?;
    let corpus = corpus()?;
    assert!(corpus.len() > 500, "{} lines are not the corpus", corpus.len());
    let mut faults = Vec::new();
    // Each scenario by itself: in a row, one host would be attacked from many sources.
    let same = |a: &Known, b: &Known| (&a.scenario, &a.sshd, a.pam) == (&b.scenario, &b.sshd, b.pam);
    for scenario in corpus.chunk_by(same) {
        let lines: String = scenario.iter().map(|known| format!("{}\n", known.line)).collect();
        let output = lab.xdpban_with_input(&["--json", "logtest"], lines.as_bytes())?;
        let answers: Vec<Value> =
            output.success()?.stdout().lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        assert_eq!(answers.len(), scenario.len());
        faults.extend(scenario.iter().zip(&answers).flat_map(|(known, answer)| known.faults(answer)));
        let ordinary = scenario.iter().all(|known| known.attack == Some(false));
        let blocked = answers.iter().any(|answer| !answer["decision"].is_null());
        if ordinary && blocked {
            faults.push(format!("an ordinary client is blocked: {:?}", scenario[0]));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    Ok(())
}
