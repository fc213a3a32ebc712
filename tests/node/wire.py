#!/usr/bin/env python3
"""A bad cable: carries Ethernet frames between two interfaces, and loses, repeats, reorders or damages some of them.

    wire.py IFACE IFACE [lose=P] [repeat=P] [reorder=P] [damage=P] [seed=N]      P: chance of a frame, percent

Neither interface may have an address. Ends with SIGTERM, and then says what it did. `wire.py plain IFACE` has the kernel cut
and sum what it sends on IFACE itself, as a card without offloads would.
"""
import fcntl, random, select, signal, socket, struct, sys, time

ETH_P_ALL, SOL_PACKET, IGNORE_OUTGOING = 0x0003, 263, 23
SIOCETHTOOL, SET_TX_SUMS, SET_TSO, SET_GSO = 0x8946, 0x17, 0x1F, 0x24
LATE_S = 0.002  # a frame that nothing overtakes goes on after this


def plain(name):
    """Interfaces of one machine hand each other frames of up to 64 KiB without checksums, unless told not to."""
    import array
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in (SET_TX_SUMS, SET_TSO, SET_GSO):
        value = array.array("B", struct.pack("II", command, 0))
        fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sP", name.encode(), value.buffer_info()[0]))


def raw(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((name, 0))
    s.setblocking(False)
    return s


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


def carry(ends, chance, rng):
    count = {"carried": 0, "lost": 0, "repeated": 0, "reordered": 0, "damaged": 0, "full": 0}
    late = []  # (when, to, frame): overtaken by the next frame of its direction, or by time

    def send(to, frame):
        try:
            to.send(frame)
            count["carried"] += 1
        except (BlockingIOError, OSError):
            count["full"] += 1

    poll = select.epoll()
    other = {}
    for one, two in (ends, ends[::-1]):
        poll.register(one, select.EPOLLIN)
        other[one.fileno()] = (one, two)
    try:
        while True:
            ready = poll.poll(LATE_S if late else 1)
            now = time.monotonic()
            while late and late[0][0] <= now:
                _, to, frame = late.pop(0)
                send(to, frame)
            for fd, _ in ready:
                one, two = other[fd]
                for _ in range(64):
                    try:
                        frame = one.recv(70000)
                    except BlockingIOError:
                        break
                    if chance["lose"] and rng.random() < chance["lose"]:
                        count["lost"] += 1
                        continue
                    if chance["damage"] and rng.random() < chance["damage"]:
                        count["damaged"] += 1
                        bad = bytearray(frame)
                        bit = rng.randrange(14 * 8, len(bad) * 8)
                        bad[bit // 8] ^= 1 << bit % 8
                        frame = bytes(bad)
                    if chance["reorder"] and rng.random() < chance["reorder"]:
                        count["reordered"] += 1
                        late.append((now + LATE_S, two, frame))
                        continue
                    send(two, frame)
                    if chance["repeat"] and rng.random() < chance["repeat"]:
                        count["repeated"] += 1
                        send(two, frame)
                    while late:
                        _, to, frame = late.pop(0)
                        send(to, frame)
    except Stop:
        print(" ".join(f"{name}={n}" for name, n in count.items()), flush=True)


def main():
    if sys.argv[1] == "plain":
        return plain(sys.argv[2])
    options = dict(a.split("=", 1) for a in sys.argv[3:])
    seed = int(options.pop("seed", "1"))
    chance = {name: float(options.pop(name, "0")) / 100 for name in ("lose", "repeat", "reorder", "damage")}
    assert not options, f"unknown: {options}"
    signal.signal(signal.SIGTERM, stop)
    carry([raw(sys.argv[1]), raw(sys.argv[2])], chance, random.Random(seed))


main()
