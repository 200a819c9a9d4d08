//! Tests of the output for users: results on stdout, everything else on stderr, a bar on a terminal, and a message at
//! Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use cloudknot_tests::skip::skipped;
use cloudknot_tests::trial::{Behavior, Fact, Spec, Trial, counted, facts, json, kill, run_of, values, wait_for};
use rustix::process::Signal;

fn trial() -> Trial {
    Trial::new(crate::PROGRAM)
}

/// Returns the output of the program with this setting of `CLOUDKNOT_PROGRESS`.
fn output(trial: &Trial, setting: &str, scenario: &str, spec: &Spec) -> Output {
    trial.command(&[scenario, &json(spec)]).env("CLOUDKNOT_PROGRESS", setting).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn printing() -> Spec {
    let print = |number| {
        Behavior::Print(format!("out {number}\n"), format!("err {number}\n"), Box::new(Behavior::Double(number)))
    };
    Spec::of((0..3).map(print))
}

#[test]
fn stdout_has_only_the_output_of_main() {
    let output = output(&trial(), "", "plain", &printing());
    assert_eq!(text(&output.stdout), "[0, 2, 4]\n");
    let stderr = text(&output.stderr);
    for number in 0..3 {
        assert!(stderr.contains(&format!("out {number}\n")) && stderr.contains(&format!("err {number}\n")), "{stderr}");
    }
    let lines: Vec<_> = stderr.lines().filter(|line| line.starts_with("cloudknot: ")).collect();
    assert!(lines[0].starts_with("cloudknot: work over 3 inputs on this machine, "), "{stderr}");
    assert!(lines[1].starts_with("cloudknot: work: 3 of 3 done, in "), "{stderr}");
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(!stderr.contains('\u{1b}') && !stderr.contains('\r'), "plain lines: {stderr:?}");
}

#[test]
fn progress_off_is_silent() {
    let output = output(&trial(), "off", "plain", &printing());
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("[0, 2, 4]\n", ""));
}

#[test]
fn invalid_progress_setting_is_reported() {
    let output = output(&trial(), "loud", "plain", &printing());
    assert!(
        text(&output.stderr).starts_with("cloudknot: invalid CLOUDKNOT_PROGRESS `loud`: must be off, plain or bar\n")
    );
}

#[test]
fn failures_are_reported_with_index_kind_message_and_location() {
    let inputs =
        [Behavior::Double(1), Behavior::Panic("boom".into()), Behavior::Fail(vec!["outer".into(), "inner".into()])];
    let output = output(&trial(), "", "plain", &Spec { retries: Some(1), ..Spec::of(inputs) });
    let stderr = text(&output.stderr);
    assert!(stderr.contains("cloudknot: work: item 1 panicked: boom, at tests/src/bin/trial/main.rs:"), "{stderr}");
    assert!(stderr.contains("item 2 returned an error: outer: inner (attempt 1; retrying)\n"), "{stderr}");
    assert!(stderr.contains("item 2 returned an error: outer: inner\n"), "{stderr}");
    assert!(stderr.contains("work: 1 of 3 done, 2 failed, in "), "{stderr}");
    // Last, the output of `main` for its error.
    assert!(stderr.contains("Error: 2 of 3 items of `work` failed in run "), "{stderr}");
    assert!(stderr.contains("\n  1  panicked           item 1: boom, at tests/src/bin/trial/main.rs:"), "{stderr}");
    assert!(stderr.contains("\n  1  returned an error  item 2: outer: inner\n"), "{stderr}");
    assert!(stderr.contains("\n  hint: "), "{stderr}");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
}

#[test]
fn many_failures_are_counted() {
    let mut inputs: Vec<_> = (0..49).map(|number| Behavior::Fail(vec![format!("no {number}")])).collect();
    inputs.push(Behavior::Fail(vec!["another".into(), "cause".into()]));
    let output = output(&trial(), "", "map", &Spec { parallel: Some(1), ..Spec::of(inputs) });
    let stderr = text(&output.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    let (shown, end) = lines[1..].split_at(10);
    assert!(shown.iter().all(|line| line.contains(" returned an error: no ")), "{stderr}");
    let further = "cloudknot: work: further failures are counted, and shown only if their cause is new";
    assert_eq!(end[..2], [further, "cloudknot: work: item 49 returned an error: another: cause"], "{stderr}");
    assert!(end[2].starts_with("cloudknot: work: 0 of 50 done, 50 failed, in "), "{stderr}");
    let groups = [
        "cloudknot:   49  returned an error  items 0-48: no N",
        "cloudknot:    1  returned an error  item 49: another: cause",
    ];
    assert_eq!(end[3..5], groups, "{stderr}");
    let run = run_of(&facts(&output.stdout)).unwrap();
    let word = run.rsplit('-').next().unwrap();
    assert_eq!(
        end[5..],
        [format!("cloudknot: next: cargo knot status {word}     cargo knot retry {word}")],
        "{stderr}"
    );
}

#[test]
fn invalid_backend_lists_candidates() {
    let output = trial().command(&["plain", &json(&printing())]).env("CLOUDKNOT_BACKEND", "nonsense").output().unwrap();
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("invalid `CLOUDKNOT_BACKEND`: `nonsense` is not a backend")
            && stderr.contains("hint: set it to `local`"),
        "{stderr}"
    );
}

#[test]
fn program_without_generated_main_prints_nothing() {
    let trial = Trial::new(env!("CARGO_BIN_EXE_bare"));
    let output = trial.command(&[]).env_remove("CLOUDKNOT_PROGRESS").output().unwrap();
    let stdout = text(&output.stdout);
    assert!(
        stdout.starts_with("42; returned an error: 1 is odd; panicked: nothing to halve, at tests/src/bin/bare.rs:"),
        "{stdout}"
    );
    assert_eq!(text(&output.stderr), "");
}

/// Run in progress: the program has received two values, and the other items take very long.
struct RunInProgress {
    trial: Trial,
    started: PathBuf,
    spec: String,
}

impl RunInProgress {
    fn new() -> Self {
        let trial = trial();
        let started = trial.file("started");
        let mut inputs = vec![Behavior::Double(1), Behavior::Double(2)];
        inputs.extend((2..6).map(|number| Behavior::Count(started.clone(), number, 3_600_000)));
        let spec = json(&Spec { parallel: Some(2), chunk: Some(1), ..Spec::of(inputs) });
        Self { trial, started, spec }
    }

    /// Waits for this state; `printed` returns the facts that the program has printed so far.
    fn wait(&self, printed: impl Fn() -> Vec<Fact>) {
        wait_for("two items to start", || (counted(&self.started).len() == 2).then_some(()));
        wait_for("two values", || (values(&printed()).len() == 2).then_some(()));
    }

    /// Checks that the message names a run with the computed values, and without failures.
    #[track_caller]
    fn check_message(&self, output: &str) {
        assert!(output.contains("cloudknot: interrupted: 2 of 6 done and kept"), "{output}");
        let (_, after) = output.split_once("continue with `work.attach(\"").expect(output);
        let (run, _) = after.split_once("\")`").unwrap();
        self.trial.wait_until_exited();
        assert!(self.trial.stored(run, "failures").is_empty(), "an interrupted item has a failure");
        let cancelled = self.trial.facts(&["cancel", run]);
        assert!(json(&cancelled).contains("[2,0,0,0,4]"), "{cancelled:?}");
    }
}

#[test]
fn interrupt_message_says_how_to_continue() {
    let run = RunInProgress::new();
    let mut command = run.trial.command(&["stream", &run.spec]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = cloudknot_tests::trial::Running::start(command, &run.trial.file(""));
    run.wait(|| running.facts());
    kill(running.pid(), Signal::INT);
    let output = running.wait_with_output();
    assert_eq!(output.status.code(), Some(130));
    run.check_message(text(&output.stderr));
}

/// H8: a scheduler, a service manager or a closed terminal ends a program as Ctrl-C does.
#[test]
fn sigterm_and_sighup_are_answered_as_an_interrupt() {
    for (signal, code) in [(Signal::TERM, 128 + 15), (Signal::HUP, 128 + 1)] {
        let run = RunInProgress::new();
        let mut command = run.trial.command(&["stream", &run.spec]);
        command.env("CLOUDKNOT_PROGRESS", "plain");
        let running = cloudknot_tests::trial::Running::start(command, &run.trial.file(""));
        run.wait(|| running.facts());
        kill(running.pid(), signal);
        let output = running.wait_with_output();
        assert_eq!(output.status.code(), Some(code));
        run.check_message(text(&output.stderr));
    }
}

/// H8: without progress, the signals end what items have started just the same.
#[test]
fn signals_are_answered_without_progress() {
    for (signal, code) in [(Signal::INT, 128 + 2), (Signal::TERM, 128 + 15), (Signal::HUP, 128 + 1)] {
        let trial = trial();
        let running = trial.start(&["map", &json(&Spec::of([Behavior::Child]))]);
        // The program, the keeper, the item process, and what the function started.
        wait_for("four processes", || (trial.processes().len() == 4).then_some(()));
        kill(running.pid(), signal);
        let output = running.wait_with_output();
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(code), ""));
        trial.wait_until_exited();
    }
}

/// `nohup` has a program ignore the end of its terminal.
#[test]
fn ignored_sighup_stays_ignored() {
    let run = RunInProgress::new();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh", crate::PROGRAM, "stream", &run.spec]);
    command.env("CLOUDKNOT_HOME", run.trial.home()).env("CLOUDKNOT_PROGRESS", "off").env_remove("CLOUDKNOT_BACKEND");
    let mut running = cloudknot_tests::trial::Running::start(command, &run.trial.file(""));
    run.wait(|| running.facts());
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel lists the signals");
        u64::from_str_radix(mask.trim(), 16).expect("it is a mask") & 1
    };
    assert_eq!((mask("SigIgn:"), mask("SigCgt:")), (1, 0), "SIGHUP is the first signal");
    kill(running.pid(), Signal::HUP);
    assert!(running.is_running());
    kill(running.pid(), Signal::TERM);
    assert_eq!(running.wait_with_output().status.code(), Some(128 + 15));
}

/// Starts a program whose stderr is a small pipe, and returns the end to read from. Nobody reads it yet.
fn start_without_reader(trial: &Trial, arguments: &[&str]) -> (std::process::Child, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = trial.command(arguments);
    command.env("CLOUDKNOT_PROGRESS", "plain").stdout(std::process::Stdio::null()).stderr(writer);
    (command.spawn().unwrap(), reader)
}

/// M10: the handler of signals waited for a lock that was held while writing to stderr.
#[test]
fn m10_interrupts_end_a_program_whose_output_nobody_reads() {
    let trial = trial();
    let attempts = trial.file("attempts");
    // Prints more than fits into the pipe and into the queue of the terminal, in many attempts.
    let fail = Box::new(Behavior::Until(attempts.clone(), 1, usize::MAX));
    let print = Behavior::Print(String::new(), "x".repeat(1_000) + "\n", fail);
    let (mut child, _reader) =
        start_without_reader(&trial, &["map", &json(&Spec { retries: Some(u32::MAX), ..Spec::of([print]) })]);
    wait_for("the output to block the run", || {
        let before = counted(&attempts).len();
        std::thread::sleep(Duration::from_millis(500));
        (before > 0 && counted(&attempts).len() == before).then_some(())
    });
    for _ in 0..3 {
        kill(i32::try_from(child.id()).unwrap(), Signal::INT);
        std::thread::sleep(Duration::from_millis(100));
    }
    let began = Instant::now();
    let status = wait_for("the program to end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    trial.wait_until_exited();
}

/// Returns the number of stored parts of the only run.
fn parts(trial: &Trial) -> usize {
    let is_part = |path: &&PathBuf| path.parent().is_some_and(|folder| folder.ends_with("results"));
    trial.stored_files().iter().filter(is_part).count()
}

/// M10: a reader that is slow, as a pager is, gets everything in order.
#[test]
fn output_is_complete_for_a_slow_reader() {
    use std::io::Read as _;
    let trial = trial();
    let line = |number: u64| format!("{number:06} {}\n", "x".repeat(1_000));
    let print = |number| Behavior::Print(String::new(), line(number), Box::new(Behavior::Double(number)));
    let spec = json(&Spec { parallel: Some(1), chunk: Some(1), ..Spec::of((0..60).map(print)) });
    let (mut child, mut reader) = start_without_reader(&trial, &["map", &spec]);
    wait_for("all values", || (parts(&trial) == 60).then_some(()));
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let (_, printed) = output.split_once('\n').unwrap();
    let (printed, last) = printed.trim_end().rsplit_once('\n').unwrap();
    assert!(format!("{printed}\n") == (0..60).map(line).collect::<String>(), "the output differs");
    assert!(last.starts_with("cloudknot: work: 60 of 60 done, in "), "{last}");
}

/// M10: a program may end before its run.
#[test]
fn output_is_complete_at_the_end_of_main() {
    use std::io::Read as _;
    let trial = trial();
    let text = "x".repeat(50_000) + "\n";
    let print = Behavior::Print(String::new(), text.clone(), Box::new(Behavior::Double(1)));
    let slow = Behavior::Sleep(3_600_000, 0);
    let spec = json(&Spec { parallel: Some(1), chunk: Some(1), ..Spec::of([print, slow]) });
    let (mut child, mut reader) = start_without_reader(&trial, &["first", &spec]);
    wait_for("the first value", || (parts(&trial) == 1).then_some(()));
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(output.ends_with(&text), "the output ends with {} bytes less", text.len().saturating_sub(output.len()));
}

/// L8: the message of an item is data, and its output is that of the user's program.
#[test]
fn l8_control_characters_of_messages_are_escaped() {
    let message = "\u{1b}]0;title\u{7} 50 %\rdone\u{202e}";
    let escaped = "\\u{1b}]0;title\\u{7} 50 %\\rdone\\u{202e}";
    let colours = "\u{1b}[31mred\u{1b}[0m\n";
    let print = Behavior::Print(colours.into(), String::new(), Box::new(Behavior::Fail(vec![message.into()])));
    let output = output(&trial(), "", "plain", &Spec { retries: Some(1), ..Spec::of([print]) });
    let stderr = text(&output.stderr);
    assert_eq!(stderr.matches(escaped).count(), 3, "two attempts, and the error of `main`: {stderr:?}");
    assert_eq!(stderr.matches(colours).count(), 2, "{stderr:?}");
    assert_eq!(stderr.matches('\u{1b}').count(), 4, "{stderr:?}");
    assert!(!stderr.contains(['\r', '\u{7}', '\u{202e}']), "{stderr:?}");
}

/// Values are stored together, about once a second. Values that have not been stored yet are not lost either.
#[test]
fn interrupt_keeps_values_not_yet_stored() {
    let trial = trial();
    let started = trial.file("started");
    // A slow item is not sent before the previous one has been answered: when the last item starts, the program has
    // the first two values.
    let inputs = [Behavior::Sleep(50, 1), Behavior::Sleep(50, 2), Behavior::Count(started.clone(), 3, 3_600_000)];
    let spec = Spec { parallel: Some(1), chunk: Some(3), ..Spec::of(inputs) };
    let mut command = trial.command(&["map", &json(&spec)]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = cloudknot_tests::trial::Running::start(command, &trial.file(""));
    wait_for("the last item to start", || (counted(&started).len() == 1).then_some(()));
    kill(running.pid(), Signal::INT);
    let output = running.wait_with_output();
    assert_eq!(output.status.code(), Some(130));
    assert!(text(&output.stderr).contains("cloudknot: interrupted: 2 of 3 done and kept"), "{output:?}");
}

/// An interrupt also ends processes that a function has started, though they are not children of this program.
#[test]
fn interrupt_ends_child_processes() {
    let trial = trial();
    let mut command = trial.command(&["map", &json(&Spec::of([Behavior::Child]))]);
    command.env("CLOUDKNOT_PROGRESS", "plain");
    let running = cloudknot_tests::trial::Running::start(command, &trial.file(""));
    // The program, the keeper, the item process, and what the function started.
    wait_for("four processes", || (trial.processes().len() == 4).then_some(()));
    kill(running.pid(), Signal::INT);
    assert_eq!(running.wait_with_output().status.code(), Some(130));
    trial.wait_until_exited();
}

/// Real terminal, drawn by tmux.
pub(crate) struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs the program in the terminal, with its stdout in a file, and then prints its exit code.
    fn run(trial: &Trial, arguments: &[&str]) -> Option<Self> {
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let (program, home, out) = (crate::PROGRAM, trial.home(), trial.file("out"));
        let line =
            format!("CLOUDKNOT_HOME='{}' '{program}' {} > '{}'", home.display(), quoted.join(" "), out.display());
        Self::start(&trial.file("tmux"), &trial.file("script"), &line)
    }

    /// Runs a line of the shell in the terminal, and then prints its exit code.
    pub(crate) fn start(socket: &Path, script: &Path, line: &str) -> Option<Self> {
        // Ctrl-C interrupts the program, and the shell continues.
        std::fs::write(script, format!("trap : INT\n{line}\necho \"exited with $?\"\nsleep 1000\n")).unwrap();
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(socket).args(["-f", "/dev/null", "new-session", "-d", "-x", "150", "-y", "30", "sh"]);
        tmux.arg(script).env_remove("TMUX").env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8");
        tmux.env_remove("CLOUDKNOT_PROGRESS").env_remove("CLOUDKNOT_BACKEND");
        tmux.output().is_ok_and(|output| output.status.success()).then(|| Self { socket: socket.to_owned() })
    }

    pub(crate) fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-J"])
    }

    pub(crate) fn wait_for(&self, text: &str) -> String {
        wait_for(text, || Some(self.screen()).filter(|screen| screen.contains(text)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Returns whether the screen contains a bar.
fn has_bar(screen: &str) -> bool {
    screen.contains(['█', '░'])
}

#[test]
fn terminal_shows_a_bar_until_the_end() {
    let trial = trial();
    let (started, go_on) = (trial.file("started"), trial.file("go on"));
    let print = Behavior::Print("what a function prints\n".into(), String::new(), Box::new(Behavior::Double(1)));
    let inputs =
        [print, Behavior::Fail(vec!["no".into()]), Behavior::Wait(started, 7, go_on.clone()), Behavior::Double(2)];
    let spec = json(&Spec { chunk: Some(1), parallel: Some(1), ..Spec::of(inputs) });
    let Some(terminal) = Terminal::run(&trial, &["map", &spec]) else {
        return skipped("the bar on a terminal", "tmux is not installed");
    };
    let screen = terminal.wait_for("2/4, 1 failed");
    assert!(has_bar(&screen), "{screen}");
    std::fs::write(&go_on, "").unwrap();
    let screen = terminal.wait_for("exited with 0");
    assert!(!has_bar(&screen), "{screen}");
    let lines: Vec<_> = screen.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].starts_with("cloudknot: work over 4 inputs on this machine, 1 item process (run "), "{screen}");
    assert_eq!(lines[1], "what a function prints", "{screen}");
    assert_eq!(lines[2], "cloudknot: work: item 1 returned an error: no", "{screen}");
    assert!(lines[3].starts_with("cloudknot: work: 3 of 4 done, 1 failed, in "), "{screen}");
    assert!(lines[4].starts_with("cloudknot: next: cargo knot status "), "{screen}");
    assert_eq!(lines.len(), 6, "{screen}");
    let facts = facts(&std::fs::read(trial.file("out")).unwrap());
    assert_eq!(values(&facts), [(0, 2), (2, 7), (3, 4)].into());
}

#[test]
fn ctrl_c_on_a_terminal_keeps_the_bar() {
    let run = RunInProgress::new();
    let Some(terminal) = Terminal::run(&run.trial, &["stream", &run.spec]) else {
        return skipped("Ctrl-C on a terminal", "tmux is not installed");
    };
    run.wait(|| facts(&std::fs::read(run.trial.file("out")).unwrap_or_default()));
    assert!(has_bar(&terminal.wait_for("2/6")));
    terminal.tmux(&["send-keys", "C-c"]);
    let screen = terminal.wait_for("exited with 130");
    // The terminal echoes the key behind the bar, and the program cannot remove it. So the last state of the bar stays
    // complete, and the message is below it.
    let lines: Vec<_> = screen.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.iter().filter(|line| has_bar(line)).count(), 1, "{screen}");
    assert!(has_bar(lines[1]) && lines[2].starts_with("cloudknot: interrupted: "), "{screen}");
    assert_eq!(lines.len(), 6, "{screen}");
    run.check_message(&screen);
}
