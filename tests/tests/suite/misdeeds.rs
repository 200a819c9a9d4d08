//! Tests that what a function does to its process, to its descriptors and to the machine costs at most its own item.
//! A name begins with the number of the finding that the test answers (`h3`), if there is one.

use cloudknot_tests::trial;
use cloudknot_tests::trial::{Behavior, Fact, ItemFailure, Misdeed, Spec, Trial, failures, kill, values, wait_for};
use rustix::process::Signal;

fn misdeed(misdeed: Misdeed) -> Behavior {
    Behavior::Misdeed(misdeed)
}

/// Runs the misdeed between other items, all in one slot, and returns what became of it.
#[track_caller]
fn outcome(trial: &Trial, deed: Misdeed, spec: Spec) -> Result<u64, Box<ItemFailure>> {
    let inputs = vec![Behavior::Double(1), misdeed(deed), Behavior::Double(2), Behavior::Double(3)];
    let facts = trial.map(&Spec { inputs, parallel: Some(1), ..spec });
    let (mut values, mut failures) = (values(&facts), failures(&facts));
    let of_misdeed = values.remove(&1).ok_or_else(|| Box::new(failures.remove(&1).expect("the item has an outcome")));
    assert_eq!((values, failures), ([(0, 2), (2, 4), (3, 6)].into(), [].into()));
    trial.wait_until_exited();
    of_misdeed
}

#[track_caller]
fn fails(deed: Misdeed, kind: &str, message: &str) {
    let failure = outcome(&trial!(), deed, Spec::default()).expect_err("it fails");
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.message.contains(message), "{failure:?}");
}

#[test]
fn h3_text_on_the_channel_fails_only_its_item() {
    fails(Misdeed::Stray("libfast 2.1: using AVX2, 8 threads\n".into()), "Crashed", "wrote to a file descriptor");
}

#[test]
fn h3_banner_before_main_is_output() {
    let trial = trial!();
    if !trial.is_local() {
        return; // the environment of a container is that of its image
    }
    let mut command = trial.command(&["map", &trial::json(&Spec::of((0..4).map(Behavior::Double)))]);
    let output = command.env("TRIAL_BANNER", "1").output().expect("the trial starts");
    let facts = trial::facts(
        &output.stdout.split_inclusive(|&byte| byte == b'\n').skip(1).flatten().copied().collect::<Vec<_>>(),
    );
    assert_eq!(values(&facts), [(0, 0), (1, 2), (2, 4), (3, 6)].into());
}

#[test]
fn m3_fork_that_returns_twice_answers_once() {
    assert_eq!(outcome(&trial!(), Misdeed::ForkAndReturn, Spec::default()).ok(), Some(7));
}

#[test]
fn m3_payload_that_panics_when_dropped_is_a_panic() {
    fails(Misdeed::PanicTwice, "Panicked", "a panic without a message");
}

#[test]
fn l9_closed_descriptors_are_not_called_a_kill() {
    let failure = outcome(&trial!(), Misdeed::CloseDescriptors, Spec::default()).expect_err("it cannot answer");
    assert_eq!(failure.kind, "Crashed");
    assert!(!failure.message.contains("memory"), "{failure:?}");
    assert!(failure.log.contains("closed a file descriptor that it did not open"), "{failure:?}");
}

#[test]
fn m4_item_that_leaves_its_group_times_out() {
    let spec = Spec { timeout_ms: Some(2_000), ..Spec::default() };
    assert_eq!(outcome(&trial!(), Misdeed::LeaveGroup, spec).expect_err("it times out").kind, "TimedOut");
}

#[test]
fn m2_item_that_floods_its_log_times_out() {
    let spec = Spec { timeout_ms: Some(2_000), ..Spec::default() };
    let failure = outcome(&trial!(), Misdeed::Flood, spec).expect_err("it times out");
    assert_eq!((failure.kind.as_str(), failure.log.len()), ("TimedOut", 16 * 1024));
}

#[test]
fn lock_poisoned_by_a_panic_fails_no_other_item() {
    let inputs = (0..40).map(|item| misdeed(Misdeed::Lock(item == 3)));
    let facts = trial!().map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert_eq!(failures(&facts).into_keys().collect::<Vec<_>>(), [3]);
    assert_eq!(values(&facts).len(), 39);
}

#[test]
fn each_item_begins_in_the_folder_of_the_program() {
    let trial = trial!();
    let here = if trial.is_local() { std::env::current_dir().unwrap() } else { "/tmp".into() };
    let inputs = (0..6).map(|_| misdeed(Misdeed::ChangeFolder(here.clone())));
    let facts = trial.map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert!(failures(&facts).is_empty(), "{facts:?}");
}

#[test]
fn process_is_replaced_after_the_requested_items() {
    let inputs = (0..9).map(|_| misdeed(Misdeed::Pid));
    let facts = trial!().map(&Spec { parallel: Some(1), chunk: Some(9), recycle: Some(3), ..Spec::of(inputs) });
    let pids: Vec<u64> = values(&facts).into_values().collect();
    for (item, pid) in pids.iter().enumerate() {
        assert_eq!(pids.iter().filter(|other| *other == pid).count(), 3, "{pids:?}");
        assert_eq!(*pid, pids[item / 3 * 3], "{pids:?}");
    }
}

#[test]
fn process_of_moderate_size_is_kept() {
    let facts = trial!().map(&Spec {
        parallel: Some(1),
        chunk: Some(8),
        ..Spec::of((0..8).map(|_| misdeed(Misdeed::Leak(1))))
    });
    let pids: std::collections::BTreeSet<u64> = values(&facts).into_values().collect();
    assert_eq!(pids.len(), 1, "{facts:?}");
}

/// A thread that the second item leaves behind aborts the process while the third one runs.
#[test]
fn abort_by_a_thread_of_an_earlier_item_fails_no_item() {
    let inputs = [Behavior::Double(1), misdeed(Misdeed::AbortLater(100)), Behavior::Sleep(500, 3), Behavior::Double(2)];
    let facts = trial!().map(&Spec { parallel: Some(1), ..Spec::of(inputs) });
    assert_eq!(values(&facts), [(0, 2), (1, 1), (2, 3), (3, 4)].into());
}

#[test]
fn h9_program_that_starts_itself_does_not_become_a_worker() {
    let trial = trial!();
    let (text, code) = if trial.is_local() { ("no such scenario", 1) } else { ("a worker cannot start itself", 78) };
    assert_eq!(outcome(&trial, Misdeed::StartItself(text.into()), Spec::default()).ok(), Some(code));
}

/// The slow item waits for what the item behind it does. Both are sent to one process, after many quick ones.
#[test]
fn m1_item_behind_a_slow_one_goes_to_another_process() {
    let trial = trial!();
    let file = trial.remote_path(&trial.file("created"));
    let mut inputs: Vec<_> = (0..2_000).map(Behavior::Double).collect();
    for _ in 0..64 {
        inputs.push(Behavior::After(file.clone(), Box::new(Behavior::Double(1))));
    }
    inputs.push(misdeed(Misdeed::Create(file)));
    let facts = trial.map(&Spec { parallel: Some(65), chunk: Some(3_000), ..Spec::of(inputs) });
    assert_eq!(values(&facts).len(), 2_065);
}

#[test]
fn m7_orphans_of_items_are_reaped() {
    let mut inputs: Vec<_> = (0..20).map(|_| misdeed(Misdeed::Orphans(2))).collect();
    inputs.push(Behavior::Sleep(1_000, 0));
    inputs.push(misdeed(Misdeed::Zombies));
    let facts = trial!().map(&Spec { parallel: Some(1), chunk: Some(100), ..Spec::of(inputs) });
    assert_eq!(values(&facts)[&21], 0, "{facts:?}");
}

fn pid_in(file: &std::path::Path) -> i32 {
    wait_for("the detached process", || std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name in parentheses; `Z` is a process that has ended and was not reaped.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Starts a map whose only item detaches a process, does something to the processes of the trial, and waits for the end of
/// the detached process.
fn detached_process_ends_after(end: impl FnOnce(&Trial, i32)) -> Vec<Fact> {
    let trial = Trial::new(crate::PROGRAM);
    let file = trial.file("pid");
    let running =
        trial.start(&["map", &trial::json(&Spec::of([misdeed(Misdeed::Detach(file.clone())), Behavior::Double(1)]))]);
    let detached = pid_in(&file);
    assert!(runs(detached));
    end(&trial, running.pid());
    wait_for("the detached process to end", || (!runs(detached)).then_some(()));
    let output = running.wait_with_output();
    trial.wait_until_exited();
    trial::facts(&output.stdout)
}

#[test]
fn h8_nothing_outlives_the_host() {
    if trial!().is_local() {
        for signal in [Signal::KILL, Signal::TERM, Signal::HUP, Signal::INT] {
            detached_process_ends_after(|_, host| kill(host, signal));
        }
    }
}

#[test]
fn h8_nothing_outlives_its_item_process() {
    if trial!().is_local() {
        let kill_items = |trial: &Trial, _| trial.item_processes().into_iter().for_each(|pid| kill(pid, Signal::KILL));
        let facts = detached_process_ends_after(kill_items);
        assert_eq!(failures(&facts)[&0].signal, Some(9));
    }
}

#[test]
fn h8_nothing_outlives_a_keeper_that_is_killed() {
    if trial!().is_local() {
        let kill_keepers = |trial: &Trial, _| trial.keepers().into_iter().for_each(|pid| kill(pid, Signal::KILL));
        let facts = detached_process_ends_after(kill_keepers);
        assert!(failures(&facts)[&0].message.contains("keeper"), "{facts:?}");
        assert_eq!(values(&facts), [(1, 2)].into());
    }
}

#[test]
fn h8_nothing_outlives_the_run() {
    let trial = trial!();
    if trial.is_local() {
        let file = trial.file("pid");
        trial.map(&Spec::of([misdeed(Misdeed::DetachAndReturn(file.clone()))]));
        let detached = pid_in(&file);
        wait_for("the detached process to end", || (!runs(detached)).then_some(()));
    }
}

/// Runs 80 items, 50 at once, under these limits of a shell.
fn run_under(limits: &str) -> Vec<Fact> {
    let trial = Trial::new(crate::PROGRAM);
    let inputs = (0..80).map(|_| Behavior::Sleep(100, 1)).chain([misdeed(Misdeed::OpenFiles)]);
    let spec = trial::json(&Spec { parallel: Some(50), ..Spec::of(inputs) });
    let command = trial.command(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{limits}; exec \"$0\" map \"$1\"")]).arg(command.get_program()).arg(spec);
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            shell.env(name, value)
        } else {
            shell.env_remove(name)
        };
    }
    let output = shell.output().expect("a shell is installed");
    assert!(output.status.success(), "{output:?}");
    trial::facts(&output.stdout)
}

#[test]
fn m3_few_open_files_lose_no_item() {
    if trial!().is_local() {
        // The soft limit can be raised; items find it as it was.
        let facts = run_under("ulimit -Sn 128");
        assert_eq!(values(&facts).len(), 81, "{facts:?}");
        assert_eq!(values(&facts)[&80], 128);
        // It cannot, so fewer run at once.
        assert_eq!(values(&run_under("ulimit -Sn 60; ulimit -Hn 60")).len(), 81);
    }
}

#[test]
fn m3_ignored_child_signals_lose_no_item() {
    if trial!().is_local() {
        assert_eq!(values(&run_under("trap '' CHLD")).len(), 81);
    }
}
