"""Ordinary TLS 1.3 behind the core's interface: one stream, ended by close_notify (RFC 8446 section 6.1)."""

from __future__ import annotations

from itertools import repeat

from tcpls.errors import Alert, ApiMisuse, NotNegotiated, Reason, SessionClosed, StreamReset
from tcpls.observe import NULL_OBSERVER, Observer
from tcpls.protocol.actions import EndSending
from tcpls.protocol.base import CoreBase, Role, SessionConfig, ends_session
from tcpls.protocol.connections import EMPTY_RECORDS_PER_SECOND, Channel, RateLimit
from tcpls.protocol.events import StreamOpened, StreamReadable, StreamWritable
from tcpls.protocol.streams import ReceiveStream, SendStream
from tcpls.tls.key_schedule import TrafficSecret
from tcpls.tls.record import MAX_CONTENT, ContentType, RecordSink, RecordSource
from tcpls.tls.suites import TrafficKeys

STREAM_ID = 0
"""The id of the one stream."""
APPLICATION_DATA = int(ContentType.APPLICATION_DATA)
UNLIMITED = 1 << 62
RUN = 16
"""Records put in one go, between two looks at what else waits."""
DEFAULT_CONFIG = SessionConfig()


class PlainSession(CoreBase):
    """TLS 1.3 on one connection. `finish` is close_notify; the peer's close_notify is the end of the stream."""

    def __init__(
        self,
        role: Role,
        read_secret: TrafficSecret,
        write_secret: TrafficSecret,
        *,
        config: SessionConfig = DEFAULT_CONFIG,
        read_sequence: int = 0,
        write_sequence: int = 0,
        now: float = 0.0,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        super().__init__(observer)
        self._role = role
        self._config = config
        self._channel = Channel(
            0,
            is_client=role is Role.CLIENT,
            read_secret=read_secret,
            write_secret=write_secret,
            received=read_sequence,
            sent=write_sequence,
            tell=self._events.append,
            update_after=config.update_keys_after,
        )
        self._empty = RateLimit(EMPTY_RECORDS_PER_SECOND, Reason.TOO_MANY_RECORDS)
        self._sending = SendStream(STREAM_ID, UNLIMITED, retain=False)
        self._receiving = ReceiveStream(STREAM_ID, None)
        self._resumed = False
        """Whether the last `receive` ended a pause."""
        self._peer_closed = False
        self._closing = False
        """Whether `close` was called: the session is over for the application, whatever the peer still sends."""
        self._close_deadline: float | None = None
        self._opened = role is Role.SERVER
        if self._opened:
            self._events.append(StreamOpened(STREAM_ID))

    @property
    def role(self) -> Role:
        return self._role

    # Records in.

    def set_blocked(self, connection_id: int, blocked: bool) -> None:
        """There is one connection: nobody else takes what it does not."""

    def settle(self) -> None:
        if self._receiving.lent:
            self._receiving.settle()

    def _receive_run(self, connection_id: int, stream: ReceiveStream, source: RecordSource, now: float) -> None:
        contents = source.open_run(APPLICATION_DATA, 0, repeat(b""))
        stream.lent += contents
        stream.offset += len(contents) * MAX_CONTENT
        self._channel.received += len(contents)

    def receive_record(
        self, connection_id: int, content_type: int, content: memoryview, now: float
    ) -> TrafficKeys | None:
        if self._ended:
            return None
        channel = self._channel
        channel.received += 1
        if content_type == APPLICATION_DATA and not channel.mid_message:
            self._receive_data(content, now)
            return None
        if content_type == ContentType.HANDSHAKE:
            return channel.receive_handshake(content, now)
        if content_type != ContentType.ALERT or channel.mid_message:
            raise channel.refuse(content_type)
        alert = channel.receive_alert(content, now)
        if alert == Alert.CLOSE_NOTIFY:
            self._peer_closed = True
            self._receiving.insert(self._receiving.offset, b"", fin=True)
            self._say_readable()
            self._judge_end()
        elif ends_session(alert):
            self._end_by_alert(alert)
        return None

    def receive_early(self, content: bytes, now: float) -> None:
        if not self._ended:
            self._receive_data(memoryview(content), now)
            # What follows is no run of its kind.
            self._run_of = None

    def sent_early(self, data: bytes) -> int:
        """This client's early data, all of which the server has taken; the stream that it began."""
        stream_id = self.open_stream()
        if stream_id is None:
            raise ApiMisuse("early data comes before everything else")
        self._sending.append(data)
        self._sending.skip_all()
        return stream_id

    def send_messages(self, messages: bytes) -> None:
        self._channel.messages += messages

    def _receive_data(self, content: memoryview, now: float) -> None:
        # RFC 8446 6.1: what comes behind a close_notify is ignored; and once this end has closed nobody reads it.
        if self._peer_closed or self._closing or self._receiving.stopped:
            return
        if not len(content):
            # RFC 8446 5.1: records without content are allowed, against traffic analysis.
            self._empty.count(now)
            return
        stream = self._receiving
        stream.lent.append(content)
        stream.offset += len(content)
        if len(content) == MAX_CONTENT:
            self._run_of = stream
        self._say_readable()

    def _say_readable(self) -> None:
        if not self._receiving.readable_said:
            self._receiving.readable_said = True
            self._events.append(StreamReadable(STREAM_ID))

    def connection_ended(self, connection_id: int, error: str | None, now: float) -> None:
        done = self._channel.finished_sending
        if error is None and self._peer_closed and not done:
            # RFC 8446 6.1: a close_notify ends one direction, and its FIN says no more: the peer may still read.
            return
        if done and (self._peer_closed or (self._closing and error is None)):
            # Many peers answer a close_notify by their FIN alone, and nobody here waits for more of their data.
            self._end(None)
        else:
            self._end_by_loss(error)

    def _judge_end(self) -> None:
        if self._peer_closed and self._channel.finished_sending:
            self._end(None)

    # Records out.

    def transmit(self, connection_id: int, sink: RecordSink, now: float) -> None:
        channel = self._channel
        if channel.finished_sending:
            return
        if self._alert is not None:
            self._put_last(sink, self._alert)
            return
        stream = self._sending
        before = channel.sent
        while sink.room and not self._ended:
            if channel.update_due:
                channel.put_update(sink)
            elif channel.messages:
                channel.put_messages(sink)
            elif stream.sent < stream.pushed or stream.written - stream.sent >= sink.max_content:
                self._put_data(sink)
            elif stream.fin_queued and not self.handshaking:
                self._put_last(sink, Alert.CLOSE_NOTIFY)
                self._judge_end()
                return
            else:
                break
        if self._close_deadline is not None and channel.sent != before:
            self._close_deadline = now + self._config.close_timeout
        if stream.room_wanted and stream.written - stream.sent <= self._config.send_buffer // 2:
            stream.room_wanted = False
            self._events.append(StreamWritable(STREAM_ID))

    def _put_data(self, sink: RecordSink) -> None:
        """One record, or a run of full ones."""
        channel, stream = self._channel, self._sending
        full = sink.max_content
        data = stream.peek(RUN * full)
        if len(data) >= 2 * full:
            count = sink.put_run(APPLICATION_DATA, data, [b""] * (len(data) // full))
            stream.skip(count * full)
            channel.sent += count
        else:
            sink.put(APPLICATION_DATA, *stream.take(full))
            channel.sent += 1

    def _put_last(self, sink: RecordSink, alert: int) -> None:
        if sink.room:
            self._channel.put_alert(sink, alert)
            self._sending.fin_sent = True
            if self._closing:
                self._close_deadline = None
                self._ask_to_close(0)
            elif not self._ended:
                # RFC 8446 6.1: nothing follows a close_notify, and some peers wait for TCP to say so too.
                self._actions.append(EndSending(0))

    # Time.

    def next_timer(self) -> float | None:
        return None if self._ended else self._close_deadline

    def timer_expired(self, now: float) -> None:
        if self._close_deadline is not None and self._close_deadline <= now and not self._ended:
            self._alert = Alert.INTERNAL_ERROR
            self._end(self._stuck(self._sending.written - self._sending.sent, self._config.close_timeout))

    @property
    def reading_paused(self) -> bool:
        waiting = self._receiving.offset - self._receiving.consumed
        return waiting >= self._config.receive_buffer and not self._closing

    @property
    def delivered(self) -> bool:
        """TLS has no acknowledgment: this says that all of it left, and that the connection ended without an error."""
        stream = self._sending
        left = self._ended and self._error is None and stream.sent == stream.written
        return left or stream.was_reset or not stream.written

    @property
    def credit_due(self) -> bool:
        return self._resumed

    # The application.

    def _check(self, stream_id: int) -> None:
        if stream_id != STREAM_ID or not self._opened:
            raise ApiMisuse(f"the stream {stream_id} is not open")

    def open_stream(self) -> int | None:
        """The one stream, once, on the client. None ever after: a server's was opened from the start."""
        if self._ended:
            raise self._final_error()
        if self._opened:
            return None
        self._opened = True
        return STREAM_ID

    def announce(self, stream_id: int) -> None:
        """The peer knows of the one stream."""

    def send(self, stream_id: int, data: bytes, now: float, more: bool = False) -> None:
        self._check(stream_id)
        self._check_open()
        stream = self._sending
        if stream.fin_queued:
            raise ApiMisuse("the stream was ended by this end")
        stream.append(data, more)
        if stream.written - stream.sent >= self._config.send_buffer:
            stream.room_wanted = True

    def push(self, stream_id: int) -> None:
        self._check(stream_id)
        self._sending.push()

    def _check_open(self) -> None:
        if self._ended:
            raise self._final_error()
        if self._closing:
            raise SessionClosed()

    def send_capacity(self, stream_id: int) -> int:
        self._check_open()
        return self._config.send_buffer - (self._sending.written - self._sending.sent)

    def unsent(self, stream_id: int) -> int:
        return self._sending.written - self._sending.sent

    def finish(self, stream_id: int) -> None:
        self._check(stream_id)
        self._sending.push()
        self._sending.fin_queued = True

    def send_finished(self, stream_id: int) -> bool:
        return self._sending.fin_sent

    def reset(self, stream_id: int, code: int) -> None:
        """TLS cannot tell the peer that data is missing other than by ending the connection with an error."""
        self._check(stream_id)
        if not self._sending.fin_sent and not self._ended:
            self._sending.drop()
            self._sending.was_reset = True
            self._alert = Alert.INTERNAL_ERROR
            self._end(StreamReset(code))

    def stop_sending(self, stream_id: int, code: int) -> None:
        """What arrives is dropped; ordinary TLS has no way to ask the peer to stop."""
        self._check(stream_id)
        self._receiving.stop()

    def receive(self, stream_id: int, limit: int) -> bytes | None:
        self._check(stream_id)
        stream = self._receiving
        if stream.stopped:
            raise ApiMisuse(f"nothing can be received from the stream {stream_id}")
        paused = self.reading_paused
        taken = stream.take(limit)
        self._resumed = paused and not self.reading_paused
        if taken:
            return taken
        if stream.consumed == stream.final_size:
            return b""
        if self._ended:
            raise self._final_error()
        stream.readable_said = False
        return None

    def close(self, code: int, reason: str, now: float) -> None:
        """With code 0: close_notify behind what was queued; lost once none of it left for `close_timeout`.

        With another, an error alert at once: data is missing.
        """
        if self._ended or self._closing:
            return
        self._closing = True
        if code:
            self._sending.drop()
            self._alert = Alert.INTERNAL_ERROR
            self._end(SessionClosed(code, reason))
            return
        self._sending.push()
        self._sending.fin_queued = True
        if self._channel.finished_sending:
            self._ask_to_close(0)
        else:
            self._close_deadline = now + self._config.close_timeout

    def ping(self, now: float) -> int:
        raise NotNegotiated("ordinary TLS has no Ping")

    def update_keys(self, request: bool) -> None:
        self._channel.request_update(request)
