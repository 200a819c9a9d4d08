//! A container of a worker, from its start to its end. Knows the engine; does not know what the worker does.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use super::{DockerError, Doing, Engine};

/// What marks our containers, so that those of a program that was killed are found and removed.
const LABEL: &str = "cloudknot.run";
/// How long a container may take to store what is finished once it is told to stop: as long as AWS Batch gives.
const GRACE_SECONDS: i32 = 30;
/// How much of a container's log is kept to explain its end.
const LOG_TAIL: usize = 16 * 1024;

/// What to run, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// The image, by its name in the engine.
    pub(crate) image: String,
    /// The run that it is for.
    pub(crate) run: String,
    /// Variables.
    pub(crate) env: Vec<String>,
    /// A folder of this machine, and where the container sees it.
    pub(crate) folder: (PathBuf, String),
    /// `uid:gid`, in place of the image's.
    pub(crate) user: String,
    /// The most memory it may have.
    pub(crate) memory_mib: Option<u64>,
    /// How many CPUs it may keep busy.
    pub(crate) vcpus: f64,
}

/// How a container ended.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) exit_code: i64,
    /// The kernel killed its first process for want of memory.
    pub(crate) out_of_memory: bool,
    /// The end of what it wrote.
    pub(crate) log: String,
}

impl Engine {
    /// Runs a container to its end, or until `stop` is ready: then it is told to stop, and has time to.
    pub(crate) async fn run(
        &self,
        order: &Order,
        stop: impl Future<Output = ()>,
        mut on_log: impl FnMut(&[u8]),
    ) -> Result<Ended, DockerError> {
        let failed = |source| DockerError::new(Doing::Run(order.image.clone()), source);
        let created = self.docker.create_container(None, body(order)).await.map_err(failed)?;
        let result = self.watch(&created.id, stop, &mut on_log).await.map_err(failed);
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        // What became of it is known; a container that cannot be removed is removed by the next `sweep`.
        if let Err(error) = self.docker.remove_container(&created.id, Some(options)).await {
            tracing::warn!(container = created.id, %error, "failed to remove a container");
        }
        result
    }

    async fn watch(
        &self,
        id: &str,
        stop: impl Future<Output = ()>,
        on_log: &mut impl FnMut(&[u8]),
    ) -> Result<Ended, EngineError> {
        self.docker.start_container(id, None).await?;
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
        let mut lines = std::pin::pin!(self.docker.logs(id, Some(options)));
        let mut stop = std::pin::pin!(stop);
        let mut tail = Vec::new();
        let mut stopped = false;
        loop {
            tokio::select! {
                line = lines.next() => match line.transpose()? {
                    // The log ends when the container does.
                    None => break,
                    Some(LogOutput::StdOut { message } | LogOutput::StdErr { message } | LogOutput::Console { message }) => {
                        on_log(&message);
                        tail.extend_from_slice(&message);
                        tail.drain(..tail.len().saturating_sub(LOG_TAIL));
                    }
                    Some(LogOutput::StdIn { .. }) => {}
                },
                () = &mut stop, if !stopped => {
                    stopped = true;
                    let options = StopContainerOptionsBuilder::default().t(GRACE_SECONDS).build();
                    self.docker.stop_container(id, Some(options)).await?;
                }
            }
        }
        // A container whose exit code is not 0 is an error to this client, and to us a fact.
        match self.docker.wait_container(id, None).try_collect::<Vec<_>>().await {
            Ok(_) | Err(EngineError::DockerContainerWaitError { .. }) => {}
            Err(error) => return Err(error),
        }
        let state = self.docker.inspect_container(id, None).await?.state.unwrap_or_default();
        Ok(Ended {
            exit_code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
            log: String::from_utf8_lossy(&tail).into_owned(),
        })
    }

    /// Removes the ended containers that programs which were killed have left behind.
    pub(crate) async fn sweep(&self) -> Result<(), DockerError> {
        let failed = |source| DockerError::new(Doing::Sweep, source);
        let filters = HashMap::from([("label", vec![LABEL]), ("status", vec!["exited", "dead"])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in self.docker.list_containers(Some(options)).await.map_err(failed)? {
            // Another program may be reading it, or be removing it as well.
            let finished = container.status.as_deref().is_some_and(|status| !status.contains("second"));
            if let Some(id) = container.id.filter(|_| finished) {
                let _ = self.docker.remove_container(&id, None).await;
            }
        }
        Ok(())
    }
}

fn body(order: &Order) -> ContainerCreateBody {
    // Docker counts memory in bytes and CPUs in billionths.
    #[allow(clippy::cast_possible_truncation)]
    let nano_cpus = (order.vcpus * 1e9) as i64;
    let memory = order.memory_mib.and_then(|mib| i64::try_from(mib << 20).ok());
    let (folder, inside) = &order.folder;
    ContainerCreateBody {
        image: Some(order.image.clone()),
        env: Some(order.env.clone()),
        user: Some(order.user.clone()),
        labels: Some(HashMap::from([(LABEL.to_owned(), order.run.clone())])),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{}:{inside}", folder.display())]),
            memory,
            // Without this a container may swap as much again.
            memory_swap: memory,
            nano_cpus: Some(nano_cpus),
            // Ends what an item process started and left behind.
            init: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
