//! Forms of main that `#[cloudknot::main]` accepts. A separate program, because a process whose generated main has run
//! executes maps in item processes from then on, which a test harness does not.

use std::process::ExitCode;

mod sync {
    #[cloudknot::main]
    pub(crate) fn main() {}
}

mod with_an_exit_code {
    #[cloudknot::main]
    pub(crate) fn main() -> super::ExitCode {
        super::ExitCode::from(3)
    }
}

mod by_itself {
    /// Documented.
    #[cloudknot::main]
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) async fn main() -> Result<u8, String> {
        tokio::time::sleep(std::time::Duration::ZERO).await;
        Ok(1)
    }
}

mod above_tokio {
    #[cloudknot::main]
    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn main() -> Result<u8, String> {
        tokio::time::sleep(std::time::Duration::ZERO).await;
        Err("two".to_owned())
    }
}

mod below_tokio {
    #[tokio::main(flavor = "current_thread")]
    #[cloudknot::main]
    pub(crate) async fn main() -> Result<u8, String> {
        tokio::time::sleep(std::time::Duration::ZERO).await;
        Ok(3)
    }
}

/// Runs each generated main, and checks its return value.
fn main() {
    sync::main();
    assert_eq!(with_an_exit_code::main(), ExitCode::from(3));
    assert_eq!(by_itself::main(), Ok(1));
    assert_eq!(above_tokio::main(), Err("two".to_owned()));
    assert_eq!(below_tokio::main(), Ok(3));
}
