//! A server of ours as a process, and a client that knows nothing but bytes.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A running `adit serve nbd`; it is killed when this is dropped.
pub struct Server {
    pub child: Child,
    pub socket: PathBuf,
    pub control: PathBuf,
}

impl Server {
    /// Starts it in a folder and waits until it listens.
    #[track_caller]
    pub fn start(dir: &Path, arguments: &[&str]) -> Server {
        let (socket, control) = (dir.join("nbd.sock"), dir.join("nbd.ctl"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_adit"))
            .args(["serve", "nbd", "--socket", "nbd.sock", "--control", "nbd.ctl", "--quiet"])
            .args(arguments)
            .current_dir(dir)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if child.try_wait().unwrap().is_some() {
                let mut text = String::new();
                child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
                panic!("the server ended: {text}");
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the server does not listen");
            std::thread::sleep(Duration::from_millis(2));
        }
        Server { child, socket, control }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket)
    }

    pub fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", self.socket.display())
    }

    /// Tells it something and gives the answer.
    #[track_caller]
    pub fn told(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.tell(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "adit ctl {arguments:?}\n{errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn tell(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command.args(["--json", "ctl"]).arg(&self.control).args(arguments);
        command.current_dir(self.control.parent().unwrap());
        command.output().unwrap()
    }

    /// Ends it as Ctrl-C would, and waits.
    #[track_caller]
    pub fn stop(mut self) {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// Ends it without a chance to do anything.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The protocol by hand, one request at a time. Errors are those of the connection.
pub struct Client {
    stream: UnixStream,
    pub size: u64,
    cookie: u64,
}

type Io<T> = std::io::Result<T>;

impl Client {
    pub fn connect(socket: &Path) -> Client {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        // The old way in, by the empty name: no reply but size and flags.
        stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\0").unwrap();
        let mut about = [0; 10];
        stream.read_exact(&mut about).unwrap();
        let size = u64::from_be_bytes(about[..8].try_into().unwrap());
        Client { stream, size, cookie: 0 }
    }

    fn ask(&mut self, flags: u16, command: u16, offset: u64, length: u32, data: &[u8]) -> Io<u32> {
        self.cookie += 1;
        let mut request = 0x2560_9513u32.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        assert_eq!(reply[..4], 0x6744_6698u32.to_be_bytes());
        assert_eq!(reply[8..], self.cookie.to_be_bytes());
        Ok(u32::from_be_bytes(reply[4..8].try_into().unwrap()))
    }

    pub fn try_read(&mut self, offset: u64, length: usize) -> Io<Result<Vec<u8>, u32>> {
        let number = self.ask(0, 0, offset, length as u32, &[])?;
        if number != 0 {
            return Ok(Err(number));
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(Ok(bytes))
    }

    #[track_caller]
    pub fn read(&mut self, offset: u64, length: usize) -> Vec<u8> {
        self.try_read(offset, length).unwrap().unwrap_or_else(|number| panic!("error {number}"))
    }

    /// 0, or the error number that the server answered.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Io<u32> {
        self.ask(0, 1, offset, bytes.len() as u32, bytes)
    }

    pub fn zero(&mut self, offset: u64, length: u32) -> Io<u32> {
        self.ask(0, 6, offset, length, &[])
    }

    pub fn trim(&mut self, offset: u64, length: u32) -> Io<u32> {
        self.ask(0, 4, offset, length, &[])
    }

    pub fn flush(&mut self) -> Io<u32> {
        self.ask(0, 3, 0, 0, &[])
    }
}

/// Runs a tool and expects success.
#[track_caller]
pub fn tool(dir: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.unwrap_or_else(|why| panic!("{program} must be installed: {why}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}\n{text}{errors}");
    text
}
