//! The application's processes, where they can be seen: on the same machine, or in a pod whose containers share their processes.
//!
//! Known by the program that they run. Remembers the CPU time of each, so that what a process has used stays counted when it
//! ends. Looks at names of all processes and at the numbers of the application's, at no arguments beyond its program.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::model::container::ProgramUsage;
use crate::system::process;

/// What the application is run by. A web server of Python, and the workers of its tasks.
const PROGRAMS: [&str; 3] = ["gunicorn", "uvicorn", "celery"];
/// The program is the first word of a command, or behind an interpreter and its `-m`.
const WORDS: usize = 3;
/// Of a command line, in bytes; programs have longer ones, but not before their name.
const COMMAND: u64 = 512;
/// More than that are not the application's alone, and to look at each would cost too much.
const MOST: usize = 4_096;

/// What is remembered between two looks.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// CPU time of the living, by their number and the time of their start.
    living: HashMap<(u32, u64), f64>,
    /// CPU time by program.
    cpu_seconds: [f64; PROGRAMS.len()],
    /// Programs that were seen: one that has ended is 0 from then on.
    seen: [bool; PROGRAMS.len()],
}

impl Programs {
    /// Looks once at the processes below this folder, which is `/proc`. Blocks: reads a small file for each process.
    pub(super) fn look(&mut self, folder: &Path) -> Vec<ProgramUsage> {
        let mut usage = PROGRAMS.map(|program| ProgramUsage { program, ..ProgramUsage::default() });
        let mut living = HashMap::new();
        for pid in pids(folder).into_iter().take(MOST) {
            let place = folder.join(pid.to_string());
            let Some(index) = program(&command(&place)) else { continue };
            let Ok(stat) = fs::read_to_string(place.join("stat")) else { continue };
            let status = fs::read_to_string(place.join("status")).unwrap_or_default();
            let process = process::parse(&stat, &status, Duration::ZERO, 0);
            let key = (pid, process::started_ticks(&stat));
            let used = process.cpu_seconds.0 + process.cpu_seconds.1;
            self.cpu_seconds[index] += (used - self.living.get(&key).copied().unwrap_or_default()).max(0.0);
            living.insert(key, used);
            self.seen[index] = true;
            usage[index].processes += 1;
            usage[index].memory_bytes += process.memory_bytes;
        }
        self.living = living;
        let with_cpu = usage.into_iter().zip(self.cpu_seconds).zip(self.seen).filter(|(_, seen)| *seen);
        with_cpu.map(|((usage, cpu_seconds), _)| ProgramUsage { cpu_seconds, ..usage }).collect()
    }
}

fn pids(folder: &Path) -> Vec<u32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn command(place: &Path) -> Vec<u8> {
    let mut command = Vec::new();
    if let Ok(file) = fs::File::open(place.join("cmdline")) {
        // a process that has ended meanwhile has none
        let _ = file.take(COMMAND).read_to_end(&mut command);
    }
    command
}

/// Which program a command runs: `gunicorn`, `/usr/bin/python3 /usr/bin/gunicorn`, `python -m celery`, `gunicorn: master [app]`.
fn program(command: &[u8]) -> Option<usize> {
    let words = command.split(|byte| matches!(byte, 0 | b' ' | b':')).filter(|word| !word.is_empty());
    let mut names = words.take(WORDS).map(|word| word.rsplit(|byte| *byte == b'/').next().unwrap_or_default());
    names.find_map(|name| PROGRAMS.iter().position(|program| program.as_bytes() == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process of this number, start, CPU time in hundredths of a second, and command.
    fn write(folder: &Path, (pid, start, ticks): (u32, u64, u64), command: &str) {
        let place = folder.join(pid.to_string());
        fs::create_dir_all(&place).expect("a folder");
        let stat =
            format!("{pid} (python) S 1 7 7 0 -1 4194304 9 0 0 0 {ticks} 0 0 0 20 0 6 0 {start} 73728000 2200 1");
        for (name, text) in [("stat", stat.as_str()), ("status", "VmRSS:\t    1000 kB\n"), ("cmdline", command)] {
            fs::write(place.join(name), text).expect("a file");
        }
    }

    #[test]
    fn the_program_is_known_by_its_first_words() {
        for (command, expected) in [
            ("gunicorn\0app:app\0", Some("gunicorn")),
            ("/venv/bin/python3\0/venv/bin/gunicorn\0-w\x004\0", Some("gunicorn")),
            ("python\0-m\0celery\0-A\0factory\0worker\0", Some("celery")),
            ("gunicorn: master [factory]", Some("gunicorn")),
            ("/usr/bin/uvicorn\0", Some("uvicorn")),
            ("grep\0-r\0--\0celery\0", None),
            ("celeryd\0", None),
            ("bash\0", None),
            ("", None),
        ] {
            assert_eq!(program(command.as_bytes()).map(|index| PROGRAMS[index]), expected, "{command}");
        }
    }

    #[test]
    fn what_a_process_has_used_stays_counted_when_it_ends() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut programs = Programs::default();
        assert_eq!(programs.look(folder.path()), []);
        write(folder.path(), (7, 100, 250), "gunicorn\0");
        write(folder.path(), (8, 110, 50), "gunicorn\0");
        write(folder.path(), (9, 120, 900), "bash\0");
        fs::create_dir(folder.path().join("self")).expect("what is no process");
        let look = |programs: &mut Programs| {
            let seen = programs.look(folder.path());
            assert_eq!(seen.len(), 1, "{seen:?}");
            (seen[0].processes, seen[0].memory_bytes, seen[0].cpu_seconds)
        };
        assert_eq!(look(&mut programs), (2, 2_048_000, 3.0));
        write(folder.path(), (7, 100, 350), "gunicorn\0");
        assert_eq!(look(&mut programs), (2, 2_048_000, 4.0));
        // one ends, and its number is another one's
        write(folder.path(), (7, 900, 25), "gunicorn\0");
        assert_eq!(look(&mut programs), (2, 2_048_000, 4.25));
        for pid in ["7", "8"] {
            fs::remove_dir_all(folder.path().join(pid)).expect("a folder");
        }
        assert_eq!(look(&mut programs), (0, 0, 4.25));
    }
}
