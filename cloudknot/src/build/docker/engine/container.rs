//! Runs a container of a worker from its start to its end. Does not depend on what the worker does.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::container::LogOutput;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::build::docker::{DockerError, Engine, Operation};

/// Label of the containers of this crate, by which those of a killed program are found and removed.
const LABEL: &str = "cloudknot.run";
/// Time in seconds that a container has to store finished outcomes after a stop request, the same as in AWS Batch.
const STOP_TIMEOUT_SECONDS: i32 = 30;
/// Number of bytes at the end of a container's log that are kept to explain its exit.
const LOG_TAIL_LEN: usize = 16 * 1024;

/// Container to run.
#[derive(Debug, Clone)]
pub(crate) struct ContainerSpec {
    /// Name of the image in the engine.
    pub(crate) image: String,
    /// ID of the run that the container belongs to.
    pub(crate) run: String,
    /// Environment variables.
    pub(crate) env: Vec<String>,
    /// Folder of this machine, and its path in the container.
    pub(crate) folder: (PathBuf, String),
    /// `uid:gid`, in place of the image's user.
    pub(crate) user: String,
    /// Maximum memory in MiB.
    pub(crate) memory_mib: Option<u64>,
    /// Number of CPUs that the container may use.
    pub(crate) vcpus: f64,
}

/// Result of a container that has ended.
#[derive(Debug, Clone)]
pub(crate) struct ContainerExit {
    pub(crate) exit_code: i64,
    /// `true` if the kernel killed the container's first process because memory ran out.
    pub(crate) out_of_memory: bool,
    /// End of the container's log.
    pub(crate) log: String,
}

impl Engine {
    /// Runs a container until it ends, or until `stop` is ready: then it requests a stop and waits for the container to end.
    pub(crate) async fn run(
        &self,
        spec: &ContainerSpec,
        stop: impl Future<Output = ()>,
        mut on_log: impl FnMut(&[u8]),
    ) -> Result<ContainerExit, DockerError> {
        let failed = |source| DockerError::new(Operation::Run(spec.image.clone()), source);
        let created = self.docker.create_container(None, body(spec)).await.map_err(failed)?;
        let result = self.watch(&created.id, stop, &mut on_log).await.map_err(failed);
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        // The result is known; a container that cannot be removed now is removed by the next `sweep`.
        if let Err(error) = self.docker.remove_container(&created.id, Some(options)).await {
            tracing::warn!(container = created.id, %error, "cannot remove a container");
        }
        result
    }

    async fn watch(
        &self,
        id: &str,
        stop: impl Future<Output = ()>,
        on_log: &mut impl FnMut(&[u8]),
    ) -> Result<ContainerExit, EngineError> {
        self.docker.start_container(id, None).await?;
        let options = LogsOptionsBuilder::default().follow(true).stdout(true).stderr(true).build();
        let mut lines = std::pin::pin!(self.docker.logs(id, Some(options)));
        let mut stop = std::pin::pin!(stop);
        let mut tail = Vec::new();
        let mut stopped = false;
        loop {
            tokio::select! {
                line = lines.next() => match line.transpose()? {
                    // The log ends when the container ends.
                    None => break,
                    Some(LogOutput::StdOut { message } | LogOutput::StdErr { message } | LogOutput::Console { message }) => {
                        on_log(&message);
                        tail.extend_from_slice(&message);
                        tail.drain(..tail.len().saturating_sub(LOG_TAIL_LEN));
                    }
                    Some(LogOutput::StdIn { .. }) => {}
                },
                () = &mut stop, if !stopped => {
                    stopped = true;
                    let options = StopContainerOptionsBuilder::default().t(STOP_TIMEOUT_SECONDS).build();
                    self.docker.stop_container(id, Some(options)).await?;
                }
            }
        }
        // The client reports an exit code other than 0 as an error; here it is a valid result.
        match self.docker.wait_container(id, None).try_collect::<Vec<_>>().await {
            Ok(_) | Err(EngineError::DockerContainerWaitError { .. }) => {}
            Err(error) => return Err(error),
        }
        let state = self.docker.inspect_container(id, None).await?.state.unwrap_or_default();
        Ok(ContainerExit {
            exit_code: state.exit_code.unwrap_or(-1),
            out_of_memory: state.oom_killed.unwrap_or(false),
            log: String::from_utf8_lossy(&tail).into_owned(),
        })
    }

    /// Removes the ended containers of programs that were killed.
    pub(crate) async fn sweep(&self) -> Result<(), DockerError> {
        let failed = |source| DockerError::new(Operation::Sweep, source);
        let filters = HashMap::from([("label", vec![LABEL]), ("status", vec!["exited", "dead"])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in self.docker.list_containers(Some(options)).await.map_err(failed)? {
            // Another program may still be reading or removing a container that ended seconds ago.
            let finished = container.status.as_deref().is_some_and(|status| !status.contains("second"));
            if let Some(id) = container.id.filter(|_| finished) {
                let _ = self.docker.remove_container(&id, None).await;
            }
        }
        Ok(())
    }
}

fn body(spec: &ContainerSpec) -> ContainerCreateBody {
    // Docker expects memory in bytes and CPUs in billionths.
    #[allow(clippy::cast_possible_truncation)]
    let nano_cpus = (spec.vcpus * 1e9) as i64;
    let memory = spec.memory_mib.and_then(|mib| i64::try_from(mib << 20).ok());
    let (folder, container_folder) = &spec.folder;
    ContainerCreateBody {
        image: Some(spec.image.clone()),
        env: Some(spec.env.clone()),
        user: Some(spec.user.clone()),
        labels: Some(HashMap::from([(LABEL.to_owned(), spec.run.clone())])),
        host_config: Some(HostConfig {
            binds: Some(vec![format!("{}:{container_folder}", folder.display())]),
            memory,
            // Without this limit, a container may use the same amount of swap in addition.
            memory_swap: memory,
            nano_cpus: Some(nano_cpus),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
