//! The descriptors that a worker holds under fixed numbers, so that a new supervisor can fetch
//! copies from a worker that has survived its own (pidfd_getfd(2)). That may be a worker of an
//! earlier program: a number never means something else, and those that came later may be absent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use crate::desk::Desk;
use crate::desk::watchlist::Watchlist;
use crate::metrics::board::Board;
use crate::supervisor::message::{Channel, Equipment};
use crate::sys::descriptors::move_to;

/// The socket of its queue; absent with the `nfq` transport.
pub const SOCKET: RawFd = 200;
/// The files of its desk.
pub const DESK: [RawFd; 3] = [201, 202, 203];
/// The board.
pub const BOARD: RawFd = 204;
/// Its end of the seat's channel.
pub const CHANNEL: RawFd = 205;
/// The list of flows that workers died of.
pub const WATCHLIST: RawFd = 206;

/// The journal of sets.
pub const SETS: RawFd = 207;

/// Puts everything in its place.
pub(super) fn place(
    equipment: Equipment,
    board: &Board,
    watchlist: &Watchlist,
    sets: BorrowedFd<'_>,
) -> io::Result<Equipment> {
    let Equipment {
        desk,
        channel,
        socket,
    } = equipment;
    let socket = socket.map(|socket| move_to(socket, SOCKET)).transpose()?;
    let [words, buffers, flows] = desk.files().map(|file| file.try_clone_to_owned());
    let files = [
        move_to(words?, DESK[0])?,
        move_to(buffers?, DESK[1])?,
        move_to(flows?, DESK[2])?,
    ];
    let channel: OwnedFd = move_to(channel.into_fd(), CHANNEL)?;
    // Only held: this process has mapped them already.
    for (file, number) in [
        (board.as_fd(), BOARD),
        (watchlist.as_fd(), WATCHLIST),
        (sets, SETS),
    ] {
        std::mem::forget(move_to(file.try_clone_to_owned()?, number)?);
    }
    Ok(Equipment {
        desk: Desk::of_files(files)?,
        channel: Channel::from_fd(channel),
        socket,
    })
}
