"""What the original application keeps in PostgreSQL, in SQLite: the app of these tests reads and writes it, and
the tests put users, tracks and threads straight in. Each process opens the file for itself. No id is ever used twice:
a deleted user's login must not become another's.
"""
import datetime
import hashlib
import json
import sqlite3
import time
import uuid

SCHEMA = """
CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY AUTOINCREMENT, username TEXT UNIQUE COLLATE NOCASE, alias TEXT,
    is_creator INT, is_team INT, is_active INT, created_by INT, tier_cents INT, requests INT, used INT, chapters INT);
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user_id INT, is_active INT, expires_at REAL, last_active REAL);
CREATE TABLE IF NOT EXISTS tracks (id TEXT PRIMARY KEY, creator_id INT);
CREATE TABLE IF NOT EXISTS comments (id INTEGER PRIMARY KEY AUTOINCREMENT, track_id TEXT, user_id INT, parent_id INT, content TEXT,
    timestamp REAL, is_edited INT DEFAULT 0, created_at TEXT, last_edited_at TEXT);
CREATE TABLE IF NOT EXISTS threads (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, user_id INT, is_pinned INT DEFAULT 0,
    is_locked INT DEFAULT 0, is_private INT DEFAULT 0, min_tier_cents INT DEFAULT 0, parent_thread_id INT,
    parent_message_id INT, created_at TEXT, first_message_id INT);
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY AUTOINCREMENT, thread_id INT, user_id INT, content TEXT,
    is_edited INT DEFAULT 0, created_at TEXT, edited_at TEXT, reply_to_id INT);
CREATE TABLE IF NOT EXISTS likes (message_id INT, user_id INT, PRIMARY KEY (message_id, user_id));
CREATE TABLE IF NOT EXISTS followers (thread_id INT, user_id INT, PRIMARY KEY (thread_id, user_id));
CREATE TABLE IF NOT EXISTS notifications (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INT, thread_id INT, is_read INT DEFAULT 0);
CREATE TABLE IF NOT EXISTS book_requests (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id INT, title TEXT, author TEXT, link TEXT,
    description TEXT, status TEXT, created_at TEXT, updated_at TEXT, responded_by_id INT, response_message TEXT,
    response_date TEXT, month_year TEXT, accepted_by_id INT, accepted_at TEXT, user_reply TEXT);
CREATE TABLE IF NOT EXISTS broadcasts (id TEXT PRIMARY KEY, message TEXT, type TEXT, created_by INT, created_at TEXT,
    is_active INT);
CREATE TABLE IF NOT EXISTS acks (broadcast_id TEXT, user_id INT, PRIMARY KEY (broadcast_id, user_id));
CREATE TABLE IF NOT EXISTS faults (namespace TEXT PRIMARY KEY, mode TEXT);
CREATE TABLE IF NOT EXISTS hooks (id INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT, event TEXT, body TEXT);
"""
UNLIMITED = 9999


def now():
    return datetime.datetime.now(datetime.timezone.utc).isoformat()


def opaque(session_id):
    """A name for a login session that nobody can log in with."""
    return hashlib.sha256(b"ringcast-session:" + session_id.encode()).hexdigest()


class Data:
    def __init__(self, path):
        self.db = sqlite3.connect(path, isolation_level=None, timeout=20, check_same_thread=False)
        self.db.row_factory = sqlite3.Row
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.executescript(SCHEMA)

    def close(self):
        self.db.close()

    def run(self, sql, *values):
        return self.db.execute(sql, values).lastrowid

    def one(self, sql, *values):
        return self.db.execute(sql, values).fetchone()

    def all(self, sql, *values):
        return self.db.execute(sql, values).fetchall()

    def value(self, sql, *values):
        row = self.one(sql, *values)
        return row[0] if row else None

    # ---- who

    def add_user(self, username=None, is_creator=False, is_team=False, is_active=True, created_by=None, tier_cents=None,
                 requests=5, used=0, chapters=10, alias=None):
        """Returns the id. `created_by` names the creator that a team member or listener belongs to."""
        user = self.run("INSERT INTO users (username, is_creator, is_team, is_active, created_by, tier_cents, requests, used,"
                        " chapters) VALUES (?,?,?,?,?,?,?,?,?)", username or "u" + uuid.uuid4().hex[:10], is_creator, is_team,
                        is_active, created_by, tier_cents, requests, used, chapters)
        self.run("UPDATE users SET alias = ? WHERE id = ?", alias or "alias%d" % user, user)
        return user

    def add_session(self, user_id, seconds=3600.0):
        session = str(uuid.uuid4())
        self.run("INSERT INTO sessions VALUES (?,?,1,?,0)", session, user_id, time.time() + seconds)
        return session

    def user(self, user_id):
        return self.one("SELECT * FROM users WHERE id = ?", user_id)

    def user_of_session(self, session_id):
        """The active user of an active, unexpired login session; touches last_active as the original does."""
        row = self.one("SELECT * FROM sessions WHERE id = ?", session_id)
        if row is None or not row["is_active"] or row["expires_at"] <= time.time():
            return None, None
        user = self.user(row["user_id"])
        if user is None or not user["is_active"]:
            return None, None
        self.run("UPDATE sessions SET last_active = ? WHERE id = ?", time.time(), session_id)
        return user, row

    @staticmethod
    def is_staff(user):
        return bool(user["is_creator"] or user["is_team"])

    @staticmethod
    def creator_of(user):
        return user["id"] if user["is_creator"] else user["created_by"]

    def admins(self, creator_id):
        """The creator and the active members of his team."""
        rows = self.all("SELECT id FROM users WHERE id = ? OR (created_by = ? AND is_team AND is_active)", creator_id, creator_id)
        return [row["id"] for row in rows]

    def groups(self, user):
        if not self.is_staff(user) or self.creator_of(user) is None:
            return []
        return ["creator:%d:admins" % self.creator_of(user)]

    # ---- tracks and threads

    def add_track(self, creator_id=None):
        track = "t-" + uuid.uuid4().hex[:12]
        self.run("INSERT INTO tracks VALUES (?,?)", track, creator_id)
        return track

    def comment(self, comment_id):
        row = self.one("SELECT * FROM comments WHERE id = ?", comment_id)
        user = self.user(row["user_id"])
        return {"id": row["id"], "user_id": user["id"], "username": user["username"],
                "author_is_creator": bool(user["is_creator"]), "author_is_team": bool(user["is_team"]), "track_id": row["track_id"],
                "parent_id": row["parent_id"], "content": row["content"], "timestamp": row["timestamp"],
                "is_edited": bool(row["is_edited"]), "created_at": row["created_at"], "like_count": 0, "user_has_liked": False}

    def add_thread(self, user_id, title="A thread", is_private=False, min_tier_cents=0, is_locked=False, parent_thread_id=None,
                   parent_message_id=None):
        return self.run("INSERT INTO threads (title, user_id, is_private, min_tier_cents, is_locked, parent_thread_id,"
                        " parent_message_id, created_at) VALUES (?,?,?,?,?,?,?,?)", title, user_id, is_private, min_tier_cents,
                        is_locked, parent_thread_id, parent_message_id, now())

    def thread(self, thread_id):
        return self.one("SELECT * FROM threads WHERE id = ?", thread_id)

    def may_read(self, user, thread):
        if self.is_staff(user):
            return True
        if thread["is_private"]:
            return False
        return thread["min_tier_cents"] == 0 or (user["tier_cents"] or 0) >= thread["min_tier_cents"]

    def role(self, user):
        return "Creator" if user["is_creator"] else "Team" if user["is_team"] else "Member"

    def thread_view(self, thread_id, user):
        """The `thread` object of forum_global, with the personal flags of `user`."""
        row = self.thread(thread_id)
        author = self.user(row["user_id"])
        view = {"id": row["id"], "title": row["title"], "user_id": author["id"], "username": author["alias"],
                "user_role": self.role(author), "user_badge_color": "#6b7280",
                "message_count": self.value("SELECT count(*) FROM messages WHERE thread_id = ?", thread_id), "view_count": 0,
                "is_pinned": bool(row["is_pinned"]), "is_locked": bool(row["is_locked"]), "min_tier_cents": row["min_tier_cents"],
                "last_message_at": row["created_at"], "created_at": row["created_at"], "can_access": self.may_read(user, row),
                "is_following": bool(self.one("SELECT 1 FROM followers WHERE thread_id = ? AND user_id = ?", thread_id, user["id"])),
                "follower_count": self.value("SELECT count(*) FROM followers WHERE thread_id = ?", thread_id),
                "thread_type": "sub" if row["parent_thread_id"] else "main", "unread_count": 0, "tier_info": None}
        if row["parent_thread_id"]:
            view.update(can_delete=self.is_staff(user), can_manage=bool(user["is_creator"]),
                        parent_message_id=row["parent_message_id"], created_from_message=True)
        return view

    def add_message(self, thread_id, user_id, content="text", reply_to_id=None):
        message = self.run("INSERT INTO messages (thread_id, user_id, content, created_at, reply_to_id) VALUES (?,?,?,?,?)",
                           thread_id, user_id, content, now(), reply_to_id)
        self.run("UPDATE threads SET first_message_id = ? WHERE id = ? AND first_message_id IS NULL", message, thread_id)
        return message

    def message(self, message_id):
        return self.one("SELECT * FROM messages WHERE id = ?", message_id)

    # ---- book requests

    def quota(self, user):
        month = now()[:7]
        if user["is_creator"]:
            allowed, used, chapters = UNLIMITED, 0, UNLIMITED
        elif user["tier_cents"] is None:
            allowed, used, chapters = 0, 0, 0
        else:
            allowed, used, chapters = user["requests"], user["used"], user["chapters"]
        return {"requests_allowed": allowed, "requests_used": used, "requests_remaining": allowed - used, "current_month": month,
                "chapters_allowed_per_book_request": chapters}

    def pending(self, creator_id):
        return self.value("SELECT count(*) FROM book_requests r JOIN users u ON u.id = r.user_id"
                          " WHERE r.status = 'pending' AND (u.created_by = ? OR u.id = ?)", creator_id, creator_id)

    def initial_data(self, user):
        count = self.pending(self.creator_of(user)) if self.is_staff(user) else 0
        return {"type": "initial_data", "quota": self.quota(user), "pending_count": count}

    # ---- for the tests: what the hook was asked, and how it fails

    def set_fault(self, namespace, mode):
        self.run("DELETE FROM faults WHERE namespace = ?", namespace)
        if mode:
            self.run("INSERT INTO faults VALUES (?,?)", namespace, mode)

    def fault(self, namespace):
        return self.value("SELECT mode FROM faults WHERE namespace = ?", namespace)

    def hook_calls(self, namespace=None, event=None):
        rows = self.all("SELECT * FROM hooks WHERE (? IS NULL OR namespace = ?) AND (? IS NULL OR event = ?) ORDER BY id",
                        namespace, namespace, event, event)
        return [json.loads(row["body"]) for row in rows]
