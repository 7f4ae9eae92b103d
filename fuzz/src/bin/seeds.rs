//! `seeds TARGET FOLDER [CORPUS]...`: writes first inputs of a target into a folder.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use sluice_fuzz::seeds;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(target), Some(folder)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: seeds TARGET FOLDER [CORPUS]...");
        return ExitCode::from(2);
    };
    let target = target.to_string_lossy().into_owned();
    let folder = PathBuf::from(folder);
    let mut inputs = seeds::own(&target);
    for corpus in arguments {
        inputs.extend(seeds::found(&target, &PathBuf::from(corpus)));
    }
    for input in &inputs {
        let name = format!("{:08x}-{}", crc32fast::hash(input), input.len());
        if let Err(error) = fs::write(folder.join(name), input) {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{}", inputs.len());
    ExitCode::SUCCESS
}
