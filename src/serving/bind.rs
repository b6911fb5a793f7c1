//! Listening on an address, on kernels with IPv6 and without it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

/// Listens on `address`. `[::]` takes IPv4 too; where the kernel has no IPv6, it is `0.0.0.0`, which
/// is logged.
///
/// # Errors
/// If the address is not this machine's, is in use, or must not be used. Outside of a tokio runtime.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    or_without_ipv6(address, listen)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    // Connections of a server that has just ended do not keep its successor from the port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Opens `address`, or all of IPv4 in place of all of IPv6 where there is no IPv6.
fn or_without_ipv6<T>(address: SocketAddr, mut open: impl FnMut(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match open(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && lacks_ipv6(&error) => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
            tracing::warn!("IPv6 is not available ({error}): listening on {instead} instead of {address}");
            open(instead)
        }
        answer => answer,
    }
}

/// Whether an error says that the kernel has no IPv6, or no interface with it.
fn lacks_ipv6(error: &io::Error) -> bool {
    let lacks = [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|code| lacks.contains(&code))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn without_ipv6_all_of_ipv4_is_listened_on() {
        let refuse = |errno: Errno| {
            move |address: SocketAddr| match address {
                SocketAddr::V6(_) => Err(io::Error::from(errno)),
                SocketAddr::V4(_) => Ok(address),
            }
        };
        let all = "[::]:7070".parse().unwrap();
        for errno in [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL] {
            let opened = or_without_ipv6(all, refuse(errno)).unwrap();
            assert_eq!(opened, "0.0.0.0:7070".parse().unwrap(), "{errno}");
        }
        // A port in use is in use, and an address that was named is not another one.
        assert!(or_without_ipv6(all, refuse(Errno::ADDRINUSE)).is_err());
        assert!(or_without_ipv6("[::1]:7070".parse().unwrap(), refuse(Errno::AFNOSUPPORT)).is_err());
    }

    /// An IPv4 address in an IPv6 socket: only a socket for both takes it, whatever the default is.
    #[tokio::test]
    async fn an_ipv6_socket_takes_ipv4() {
        let listener = match bind("[::ffff:127.0.0.1]:0".parse().unwrap()) {
            Ok(listener) => listener,
            // Not on this kernel, then.
            Err(error) if lacks_ipv6(&error) => return,
            Err(error) => panic!("{error}"),
        };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), client.local_addr().unwrap().ip());
    }
}
