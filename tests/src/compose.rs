//! The real deploy/compose.yaml with the real image, in containers of its own.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::{ports, server};

/// Nodes in deploy/compose.yaml.
pub const NODES: u64 = 3;
/// A node that is not healthy by then hangs.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A cluster in containers. Dropping it removes them, their volumes and the image.
#[derive(Debug)]
pub struct Compose {
    project: String,
    /// What compose.yaml reads from its environment.
    variables: Vec<(String, String)>,
    addresses: Vec<String>,
}

impl Compose {
    /// Builds the image around the binary and starts the nodes. `Err`: what is missing here.
    ///
    /// # Errors
    /// If there is no Docker engine, no compose tool, or no way to a base image.
    ///
    /// # Panics
    /// If the image cannot be built, or the containers do not start.
    pub fn start() -> Result<Self, String> {
        there(Command::new("docker").args(["info", "--format", "{{.ServerVersion}}"]), "no Docker engine answers")?;
        there(Command::new("docker-compose").arg("version"), "docker-compose is not installed")?;
        there(&mut Command::new(deploy("base-image.sh")), "there is no base image")?;
        let project = format!("flotilla-test-{}", std::process::id());
        succeeds(Command::new(deploy("image.sh")).arg(server::binary()).arg(&project));
        let free = || ports::free().port().to_string();
        let mut variables = vec![("FLOTILLA_IMAGE".to_owned(), project.clone())];
        let mut addresses = Vec::new();
        for node in 1..=NODES {
            let port = free();
            addresses.push(format!("127.0.0.1:{port}"));
            variables.push((format!("FLOTILLA_PORT_{node}"), port));
            variables.push((format!("FLOTILLA_HTTP_PORT_{node}"), free()));
        }
        let compose = Self { project, variables, addresses };
        compose.run(&["up", "--detach", "--no-build"]);
        Ok(compose)
    }

    /// Where the nodes are for clients on this machine, as `--addr` takes it.
    #[must_use]
    pub fn addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// Waits until the health check of a node's container succeeds.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait_healthy(&self, node: u64) {
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        let inspect = || self.docker(&["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}"], node);
        while inspect().trim() != "running healthy" {
            assert!(Instant::now() < deadline, "node {node} is {}: {}", inspect(), self.logs());
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// `docker kill`: ends a node's container at once.
    pub fn kill(&self, node: u64) {
        self.docker(&["kill"], node);
    }

    /// `docker stop`, with the time that compose.yaml gives: the node may finish what is in flight. Its exit code.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn stop(&self, node: u64) -> i32 {
        self.docker(&["stop", "--time", "60"], node);
        self.docker(&["inspect", "--format", "{{.State.ExitCode}}"], node).trim().parse().unwrap()
    }

    /// Starts a container that was stopped or killed.
    pub fn restart(&self, node: u64) {
        self.docker(&["start"], node);
    }

    fn docker(&self, args: &[&str], node: u64) -> String {
        succeeds(Command::new("docker").args(args).arg(format!("{}_node{node}_1", self.project)))
    }

    fn logs(&self) -> String {
        self.run(&["logs", "--no-color", "--tail", "20"])
    }

    fn run(&self, args: &[&str]) -> String {
        succeeds(&mut self.command(args))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", &self.project, "--file"]).arg(deploy("compose.yaml")).args(args);
        command.envs(self.variables.iter().cloned());
        command
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        // A test that failed already must not panic again.
        let _ = self.command(&["down", "--volumes", "--timeout", "5"]).output();
        let _ = Command::new("docker").args(["image", "rm", "--force", &self.project]).output();
    }
}

fn deploy(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file)
}

fn there(command: &mut Command, missing: &str) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{missing}: {}", said(&output))),
        Err(error) => Err(format!("{missing}: {error}")),
    }
}

fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim().to_owned()
}
