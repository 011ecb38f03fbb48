"""Controllers that a peer ships: judged here, loaded by the helper, attached to the sockets of one session."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tcpls.errors import KernelUnavailable, ProgramRefused
from tcpls.kernel import sockopts
from tcpls.kernel.helper_client import Attachment, HelperClient
from tcpls.kernel.program import Mode, Offer, ProgramPolicy
from tcpls.protocol.actions import ProgramOffer

T = TypeVar("T")


@dataclass(slots=True)
class _Attached:
    socket: socket.socket
    attachment: Attachment


@dataclass(slots=True)
class _Program:
    """One of the peer's. `everywhere`: on the connections that come later, too."""

    digest: bytes
    everywhere: bool
    attached: list[_Attached]


class ProgramHost:
    """What one session has attached for its peer. `helper` is shared by all sessions of the process.

    `peer_authenticated`: whether this end knows who the peer is, which the mode "authenticated" asks for. `engine`
    checks signatures.
    """

    def __init__(
        self, policy: ProgramPolicy, helper: HelperClient | None, *, peer_authenticated: bool, engine: str
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._peer_authenticated = peer_authenticated
        self._helper = helper
        self._programs: dict[int, _Program] = {}

    @property
    def accepts(self) -> bool:
        """Whether there is any program that this end would take."""
        return self._policy.mode is not Mode.OFF and self._helper is not None

    def judge(self, offer: ProgramOffer) -> None:
        """Raises `ProgramRefused` when local policy does not want the program, before any byte of it has come."""
        known = _known(offer)
        self._policy.judge(known, peer_authenticated=self._peer_authenticated, engine=self._engine)
        if self._helper is None:
            raise ProgramRefused("this end has no privilege to load programs", stage="policy")

    async def load(self, program_id: int, offer: ProgramOffer, image: bytes, sockets: Sequence[socket.socket]) -> str:
        """Checks, loads and attaches; returns the algorithm's name as the kernel reports it.

        Raises `ProgramRefused`, or `KernelUnavailable` when the helper is gone or lacks a privilege; then no socket
        was changed, or those that were have their former algorithm again.
        """
        helper = self._helper
        if helper is None or not sockets:
            raise ProgramRefused("there is no connection to attach it to", stage="policy")
        program = _Program(offer.digest, not offer.connections, [])
        self._programs[program_id] = program
        attached = program.attached
        try:
            for sock in sockets:
                # A duplicate: the number of a socket that is closed meanwhile might come to mean somebody else's.
                with sock.dup() as duplicate:
                    loading = asyncio.to_thread(
                        helper.load,
                        _known(offer),
                        image,
                        duplicate.fileno(),
                        peer_authenticated=self._peer_authenticated,
                    )
                    # Not cancelled half-way: what the helper has attached must come to be known here.
                    attachment = await _to_its_end(loading)
                attached.append(_Attached(sock, attachment))
        except BaseException:
            await self.detach(program_id)
            raise
        return attached[-1].attachment.algorithm

    async def detach(self, program_id: int) -> str:
        """Gives the sockets their former algorithm back and lets go of the program. Raises `ProgramRefused`."""
        name = ""
        program = self._programs.pop(program_id, None)
        for one in program.attached if program is not None else ():
            try:
                if one.socket.fileno() >= 0:
                    name = await self._give_back(one.socket, one.attachment.former)
            finally:
                one.attachment.close()
        return name

    async def adopt(self, sock: socket.socket) -> None:
        """A connection has joined: what is attached for the whole session is attached to it, too.

        Until then what the connections before it had is kept, even if all of them are gone. Raises `ProgramRefused`,
        `KernelUnavailable`, OSError.
        """
        helper = self._helper
        for program in list(self._programs.values()):
            if helper is None or not program.everywhere or not program.attached:
                continue
            with sock.dup() as duplicate:
                attachment = await _to_its_end(asyncio.to_thread(helper.attach, program.digest, duplicate.fileno()))
            before, program.attached = program.attached, []
            for one in before:
                if one.socket.fileno() >= 0:
                    program.attached.append(one)
                else:
                    one.attachment.close()
            program.attached.append(_Attached(sock, attachment))

    async def _give_back(self, sock: socket.socket, former: str) -> str:
        if self._helper is None:
            raise KernelUnavailable("congestion control", "the helper is gone")
        with sock.dup() as duplicate:
            await asyncio.to_thread(self._helper.set_algorithm, duplicate.fileno(), former)
        return sockopts.congestion(sock)

    def close(self) -> None:
        """Lets go of everything: the kernel unregisters a program with the last socket that uses it."""
        for program in self._programs.values():
            for one in program.attached:
                one.attachment.close()
        self._programs.clear()


async def _to_its_end(work: Coroutine[None, None, T]) -> T:
    """Waits for `work`; when this task is cancelled meanwhile, work is still waited for, and then let go of."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        result = await task
        if isinstance(result, Attachment):
            result.close()
        raise


def _known(offer: ProgramOffer) -> Offer:
    return Offer(
        name=offer.name,
        digest=offer.digest,
        size=offer.size,
        abi=offer.abi,
        signature=offer.signature,
        key_id=offer.key_id,
    )
