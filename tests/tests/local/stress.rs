//! Maps of random shape, whose item processes and programs are killed at random: what comes out is what a plain loop gives.
//!
//! `CLOUDKNOT_STRESS_SEED` repeats the shapes of a run that was printed; `CLOUDKNOT_STRESS_SECONDS` makes it longer.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cloudknot_tests::random::{Random, seed};
use cloudknot_tests::skip::skipped;
use cloudknot_tests::trial::{Fact, Spec, Task, Trial, facts, json, kill, run_of, values};
use rustix::process::Signal;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

fn say(what: &str) {
    // Also where the test passes: the seed is what there is to repeat it by.
    let _ = writeln!(std::io::stderr(), "{what}");
}

#[test]
fn nothing_is_lost_doubled_or_misplaced() {
    if !cfg!(target_os = "linux") {
        return skipped("killing item processes at random", "they are found through /proc");
    }
    let seed = seed();
    let end = Instant::now() + Duration::from_secs(setting("CLOUDKNOT_STRESS_SECONDS", 20));
    let mut random = Random::new(seed);
    let (mut maps, mut items, mut programs) = (0, 0, 0);
    while Instant::now() < end {
        let map = Map::shaped_by(&mut random);
        say(&format!("CLOUDKNOT_STRESS_SEED={seed}, map {maps}: {}", map.shape()));
        programs += map.run(&mut random);
        maps += 1;
        items += map.expected.len();
    }
    say(&format!("{maps} maps of {items} items by {programs} programs"));
}

struct Map {
    trial: Trial,
    spec: Spec,
    expected: Vec<u64>,
    /// Programs are killed within this time; item processes, on average, as often.
    kills_ms: u64,
}

impl Map {
    fn shaped_by(random: &mut Random) -> Self {
        let items = [1, 40, 150, 600][usize::try_from(random.below(4)).unwrap()];
        let items = items + random.below(items);
        let longest = [1, 4, 40][usize::try_from(random.below(3)).unwrap()];
        let mut tasks = Vec::new();
        let mut expected = Vec::new();
        for item in 0..items {
            let task = match random.below(4) {
                0 => Task::Sleep(random.below(longest), item),
                // Inputs of all lengths: what is given to the wrong item has the wrong length as well.
                1 => Task::Print(
                    String::new(),
                    "x".repeat(usize::try_from(random.below(300)).unwrap()),
                    Box::new(Task::Sleep(0, item)),
                ),
                _ => Task::Double(item),
            };
            expected.push(if matches!(task, Task::Double(_)) { 2 * item } else { item });
            tasks.push(task);
        }
        let chunk = (random.below(3) > 0).then(|| 1 + random.below(items.max(1)));
        let parallel = Some(1 + u32::try_from(random.below(4)).unwrap());
        // Enough for whoever is unlucky: each kill costs an item an attempt.
        let spec = Spec { chunk, parallel, retries: Some(1_000), ..Spec::of(tasks) };
        let kills_ms = 30 + random.below(200);
        Self { trial: Trial::new(crate::PROGRAM), spec, expected, kills_ms }
    }

    fn shape(&self) -> String {
        let Spec { tasks, chunk, parallel, .. } = &self.spec;
        format!("{} items, chunk {chunk:?}, parallel {parallel:?}, kills within {} ms", tasks.len(), self.kills_ms)
    }

    /// Until a program comes to the end of the run; how many it took.
    fn run(&self, random: &mut Random) -> u32 {
        let stop = AtomicBool::new(false);
        let mut victims = Random::new(random.next());
        std::thread::scope(|scope| {
            scope.spawn(|| self.kill_item_processes(&stop, &mut victims));
            // Set also where a check fails: or its panic would wait for that thread.
            let _stop = StopAtEnd(&stop);
            let spec = json(&self.spec);
            let mut run: Option<String> = None;
            for program in 1.. {
                let attached = run.clone();
                let arguments = attached.as_deref().map_or(["stream", &spec], |run| ["attach-stream", run]);
                // Later ones are left more time, so that the run comes to an end.
                let patience = self.kills_ms + random.below(self.kills_ms * u64::from(program));
                let Some(told) = self.program(&arguments, Duration::from_millis(patience), &mut run) else { continue };
                self.check(&told, run.as_deref().expect("a program that ends has told its run"));
                return program;
            }
            unreachable!("programs are started until one ends");
        })
    }

    /// What a program told, unless it was killed before its end.
    fn program(&self, arguments: &[&str], patience: Duration, run: &mut Option<String>) -> Option<Vec<Fact>> {
        let mut running = self.trial.start(arguments);
        let began = Instant::now();
        while running.goes_on() {
            if began.elapsed() > patience {
                *run = run.take().or_else(|| run_of(&running.facts()));
                kill(running.pid(), Signal::KILL);
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let output = running.end();
        let told = facts(&output.stdout);
        *run = run.take().or_else(|| run_of(&told));
        // It may have come to its end just before it was killed.
        if !output.status.success() {
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(told)
    }

    fn kill_item_processes(&self, stop: &AtomicBool, random: &mut Random) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(random.below(2 * self.kills_ms)));
            let processes: Vec<_> = self.trial.processes().into_iter().filter(|&pid| is_item_process(pid)).collect();
            if processes.is_empty() {
                continue;
            }
            let victim = processes[usize::try_from(random.below(processes.len() as u64)).unwrap()];
            // Most of those that start are spared: where ten in a row cannot, that is a failure.
            if has_started(victim) || random.below(4) == 0 {
                kill(victim, Signal::KILL);
            }
        }
    }

    fn check(&self, told: &[Fact], run: &str) {
        let failed: Vec<_> = told.iter().filter(|fact| matches!(fact, Fact::Failed(..))).collect();
        assert!(failed.is_empty(), "{failed:?}");
        // `values` refuses an item that is told twice.
        let values = values(told);
        let expected = self.expected.iter().copied().enumerate().collect();
        assert_eq!(values, expected);
        // The store holds each value once: none was computed again that was there.
        let all: Vec<u64> = (0..self.expected.len() as u64).collect();
        assert_eq!(self.trial.items_with_values(run), all);
    }
}

/// Item processes lead a group of their own; programs of this test are in its group.
fn is_item_process(pid: i32) -> bool {
    let group = rustix::process::Pid::from_raw(pid).and_then(|pid| rustix::process::getpgid(Some(pid)).ok());
    group.is_some_and(|group| group.as_raw_nonzero().get() == pid)
}

/// It makes itself the first to go in a lack of memory just before it says that it is ready.
fn has_started(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).is_ok_and(|score| score.trim() == "1000")
}

struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
