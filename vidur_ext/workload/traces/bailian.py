"""Qwen Bailian traces: JSON lines with the keys of Mooncake's and those of a chat; time in seconds.

``hash_ids``, one for every 16 tokens of the prompt, say which prefixes are shared. A request with
a ``parent_chat_id`` is a later turn of that one's session; think times are not recorded, so turns
arrive at their times. Source: Wang et al., "KVCache Cache in the Wild", USENIX ATC 2025
(arXiv:2506.02634), and github.com/alibaba-edu/qwen-bailian-usagetraces-anon.
"""

from __future__ import annotations

from pathlib import Path

from vidur_ext.workload.trace_identity import OpenSessions
from vidur_ext.workload.trace_json import KEYS, JsonTrace, is_id, json_records
from vidur_ext.workload.trace_rows import Trace, column_error, value_error

CHAT, PARENT, TURN = "chat_id", "parent_chat_id", "turn"
COLUMNS = (*KEYS, CHAT, PARENT, TURN)
TIME_UNIT = "s"
BLOCK_TOKENS = 16
_FIRST_TURN = -1


def read(path: Path) -> Trace:
    """Read a trace; time 0 is its first request.

    Raises:
        UserError: the file is malformed; the text says where.
    """
    requests, sessions = JsonTrace(path, 1.0, BLOCK_TOKENS), OpenSessions()
    chats = _Chats(path)
    for line, record in json_records(path, COLUMNS):
        requests.add(line, record)
        chat, parent, turn = record[CHAT], record[PARENT], record[TURN]
        if not is_id(chat):
            raise value_error(path, line, CHAT, "a whole number >= 0", chat)
        if not is_id(parent) and (isinstance(parent, bool) or parent != _FIRST_TURN):
            raise value_error(path, line, PARENT, "a chat_id, or -1 for a first turn", parent)
        if not is_id(turn) or turn < 1:
            raise value_error(path, line, TURN, "a whole number >= 1", turn)
        sessions.add(chats.session(line, chat, parent), turn - 1)
    return requests.trace(sessions.sessions())


class _Chats:
    """Follows chats to the request that began their session."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line: dict[int, int] = {}
        self._session: dict[int, int] = {}
        self._child: dict[int, int] = {}

    def session(self, line: int, chat: int, parent: int) -> int:
        """Return the session of a request: the chat that began it, in the file or before it."""
        if chat in self._line:
            raise column_error(
                self._path, line, CHAT, f"{chat} is that of line {self._line[chat]} already"
            )
        if chat in self._child:
            raise column_error(
                self._path,
                line,
                CHAT,
                f"{chat} is the parent of line {self._child[chat]} above; a turn follows its "
                "parent: sort the file by timestamp",
            )
        session = chat
        if parent != _FIRST_TURN:
            session = self._session.setdefault(parent, parent)
            if parent not in self._line:
                self._child.setdefault(parent, line)
        self._line[chat], self._session[chat] = line, session
        return session
