//! What to watch where the configuration names no source.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use xdpban_engine::record::Format;

use crate::config::SourceConfig;

/// Where syslog daemons put what sshd says: Debian's and Red Hat's place.
const LOGS: [&str; 2] = ["var/log/auth.log", "var/log/secure"];

/// What is there while journald runs.
const JOURNALD: &str = "run/systemd/journal/socket";

/// How long a log can have been silent and still pass for being written. Logins, sudo and cron's sessions go to the
/// same file, so a day without any is a sign that its syslog daemon was removed.
const SILENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// The one source that sshd's messages come from on this host. There is only ever one: two would count each attempt
/// twice. A file that is being written comes before the journal, which tells of new entries up to 250 ms late.
///
/// `programs`: whose entries to read from the journal beside sshd's.
pub fn find_default(programs: Vec<String>) -> Vec<SourceConfig> {
    vec![choose(Path::new("/"), SystemTime::now(), programs)]
}

fn choose(root: &Path, now: SystemTime, programs: Vec<String>) -> SourceConfig {
    // A file that was written in the future is one that was written.
    let age = |path: &Path| {
        let modified = path.metadata().ok().filter(std::fs::Metadata::is_file)?.modified().ok()?;
        Some(now.duration_since(modified).unwrap_or_default())
    };
    let logs = LOGS.map(|log| root.join(log));
    let newest = logs.iter().filter_map(|path| Some((age(path)?, path))).min();
    let journald = root.join(JOURNALD).exists();
    match newest {
        Some((age, path)) if age < SILENCE || !journald => file(path.clone()),
        _ if journald => SourceConfig::Journal { programs },
        _ => {
            let [first, ..] = logs;
            file(first)
        }
    }
}

fn file(path: PathBuf) -> SourceConfig {
    SourceConfig::File { path, format: Format::Syslog, program: None }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn chosen(files: &[(&str, u64)]) -> SourceConfig {
        let root = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        for (file, hours) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(path).unwrap();
            file.set_modified(now - Duration::from_secs(hours * 3600)).unwrap();
        }
        match choose(root.path(), now, Vec::new()) {
            SourceConfig::File { path, .. } => file(path.strip_prefix(root.path()).unwrap().to_owned()),
            journal => journal,
        }
    }

    #[test]
    fn exactly_one_is_chosen() {
        let [debian, red_hat] = LOGS.map(|log| file(log.into()));
        assert_eq!(chosen(&[]), debian, "nothing is there yet: the file is waited for");
        assert_eq!(chosen(&[(LOGS[0], 1)]), debian);
        assert_eq!(chosen(&[(LOGS[1], 1)]), red_hat);
        assert_eq!(chosen(&[(LOGS[0], 9), (LOGS[1], 2)]), red_hat, "the one that is written");
        assert_eq!(chosen(&[(JOURNALD, 0)]), SourceConfig::Journal { programs: Vec::new() });
        assert_eq!(chosen(&[(LOGS[1], 1), (JOURNALD, 0)]), red_hat);
        assert_eq!(
            chosen(&[(LOGS[0], 25), (JOURNALD, 0)]),
            SourceConfig::Journal { programs: Vec::new() },
            "nobody writes the file"
        );
        assert_eq!(chosen(&[(LOGS[0], 25)]), debian);
    }
}
