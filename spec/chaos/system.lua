--- What chaos needs of the system, through the FFI: processes, signals, limits, /proc.

local ffi = require "ffi"
local bit = require "bit"

ffi.cdef [[
struct chaos_timespec { long seconds, nanoseconds; };
struct chaos_rlimit { unsigned long soft, hard; };
struct chaos_interval { long every_s, every_us, first_s, first_us; };
typedef void (*chaos_handler)(int);
int clock_gettime(int clock, struct chaos_timespec *out);
int poll(void *fds, unsigned long count, int timeout_ms);
int getpid(void);
int getuid(void);
int fork(void);
int setsid(void);
int setgroups(size_t count, const unsigned *groups);
int setgid(unsigned group);
int setuid(unsigned user);
int setrlimit(int resource, const struct chaos_rlimit *limit);
int setitimer(int which, const struct chaos_interval *new, void *old);
int kill(int pid, int signal);
chaos_handler signal(int number, chaos_handler handler);
int siginterrupt(int number, int flag);
int waitpid(int pid, int *status, int options);
int execvp(const char *file, const char *const *arguments);
int open(const char *path, int flags, ...);
int pipe(int *ends);
int dup2(int from, int to);
int close(int fd);
long read(int fd, void *bytes, size_t count);
long write(int fd, const void *bytes, size_t count);
int ftruncate(int fd, long size);
void *mmap(void *at, size_t size, int access, int flags, int fd, long offset);
int munmap(void *at, size_t size);
int mkdir(const char *path, unsigned mode);
int chown(const char *path, unsigned user, unsigned group);
int prctl(int option, ...);
int abs(int);
long syscall(long number, ...);
void _exit(int);
]]

local C = ffi.C
local status = ffi.new "int[1]"
local system = {
  SIGHUP = 1, SIGINT = 2, SIGKILL = 9, SIGUSR1 = 10, SIGSEGV = 11, SIGUSR2 = 12, SIGALRM = 14,
  SIGTERM = 15, SIGCHLD = 17, SIGCONT = 18, SIGSTOP = 19, SIGURG = 23, SIGWINCH = 28,
  RLIMIT_CORE = 4, RLIMIT_NPROC = 6, RLIMIT_NOFILE = 7, RLIMIT_AS = 9,
}

--- Signals that end a worker, the likely one more often.
system.deadly = { system.SIGKILL, system.SIGKILL, system.SIGKILL, system.SIGTERM, system.SIGSEGV }

local O_RDWR, O_CREAT, O_TRUNC, O_APPEND, O_CLOEXEC = 2, 64, 512, 1024, 524288
local EINTR = 4
local PR_SET_PDEATHSIG = 1
local WNOHANG = 1
local SYS_PIDFD_SEND_SIGNAL, SYS_PIDFD_OPEN = 424, 434

local time = ffi.new "struct chaos_timespec"

--- Seconds of the monotonic clock.
function system.now()
  C.clock_gettime(1, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) * 1e-9
end

--- Sleep; a signal may end it early.
function system.nap(seconds) C.poll(nil, 0, math.ceil(seconds * 1000)) end

function system.self() return C.getpid() end

function system.is_root() return C.getuid() == 0 end

function system.kill(pid, signal) return C.kill(pid, signal) == 0 end

--- Numbers from a seed, the same everywhere: Steele, Lea and Flood's splitmix. random(n) is in
--- 1 .. n.
function system.generator(seed)
  local state = ffi.cast("uint64_t", seed)
  return function(limit)
    state = state + 0x9e3779b97f4a7c15ULL
    local mixed = state
    mixed = bit.bxor(mixed, bit.rshift(mixed, 30)) * 0xbf58476d1ce4e5b9ULL
    mixed = bit.bxor(mixed, bit.rshift(mixed, 27)) * 0x94d049bb133111ebULL
    return tonumber(bit.bxor(mixed, bit.rshift(mixed, 31)) % limit) + 1
  end
end

-- ---- this process ----

function system.limit(resource, value)
  return C.setrlimit(resource, ffi.new("struct chaos_rlimit", value, value)) == 0
end

--- A handler that does nothing, and that interrupts system calls.
function system.handle(signal)
  C.signal(signal, ffi.cast("chaos_handler", C.abs))
  C.siginterrupt(signal, 1)
end

--- SIGALRM to this process, at intervals; 0 ends it.
function system.shower(seconds)
  local us = math.floor(seconds * 1e6)
  C.setitimer(0, ffi.new("struct chaos_interval", 0, us, 0, us), nil)
end

--- Give up being root, and all groups.
function system.become(user)
  C.setgroups(0, nil)
  C.setgid(user)
  C.setuid(user)
end

--- Could another user do this?
function system.can_become(user, act)
  local pid = C.fork()
  if pid == 0 then
    system.become(user)
    C._exit(act() and 0 or 1)
  end
  C.waitpid(pid, status, 0)
  return status[0] == 0
end

function system.close(fd) C.close(fd) end

-- ---- files ----

--- Write all of it, over interruptions.
function system.write(fd, text)
  local at = 0
  while at < #text do
    local count = tonumber(C.write(fd, ffi.cast("const char *", text) + at, #text - at))
    if count > 0 then at = at + count elseif ffi.errno() ~= EINTR then return false end
  end
  return true
end

--- A byte from a descriptor, over interruptions; nil at its end.
function system.read_byte(fd)
  local byte = ffi.new "char[1]"
  while true do
    local count = tonumber(C.read(fd, byte, 1))
    if count == 1 then return byte[0] end
    if count == 0 or ffi.errno() ~= EINTR then return nil end
  end
end

--- A file of numbers of 32 bits, as memory that whoever maps it shares.
---@return ffi.cdata* numbers
function system.map_numbers(path, count)
  local fd = C.open(path, bit.bor(O_RDWR, O_CREAT, O_CLOEXEC), ffi.cast("int", 438))
  if fd < 0 then error("cannot open " .. path .. ": errno " .. ffi.errno()) end
  C.ftruncate(fd, count * 4)
  local at = C.mmap(nil, count * 4, 3, 1, fd, 0)
  C.close(fd)
  if ffi.cast("intptr_t", at) == -1 then error("cannot map " .. path .. ": no memory") end
  return ffi.cast("int32_t *", at)
end

function system.slurp(path)
  local file = io.open(path, "rb")
  if not file then return nil end
  local text = file:read "*a"
  file:close()
  return text
end

-- ---- other processes ----

--- Start a program in a session of its own; it does not outlive us.
---@param arguments string[]
---@param given { output: string, prepare: function? } what to call in the child before
---@return integer pid
---@return integer input  the descriptor its standard input reads
function system.start(arguments, given)
  local ends = ffi.new "int[2]"
  assert(C.pipe(ends) == 0, "no pipe")
  io.stdout:flush()
  local pid = C.fork()
  if pid == 0 then
    C.setsid()
    C.dup2(ends[0], 0)
    C.close(ends[0])
    C.close(ends[1])
    local fd = C.open(given.output, bit.bor(O_RDWR, O_CREAT, O_TRUNC, O_APPEND),
      ffi.cast("int", 438))
    C.dup2(fd, 1)
    C.dup2(fd, 2)
    if fd > 2 then C.close(fd) end
    if given.prepare then given.prepare() end
    C.prctl(PR_SET_PDEATHSIG, ffi.cast("unsigned long", system.SIGKILL)) -- another user forgets it
    local list = ffi.new("const char *[?]", #arguments + 1)
    for i, argument in ipairs(arguments) do list[i - 1] = argument end
    C.execvp(arguments[1], list)
    C._exit(127)
  end
  assert(pid > 0, "no fork")
  C.close(ends[0])
  return pid, ends[1]
end

--- Has a child ended? How, as waitpid(2) says it.
function system.reap(pid)
  if C.waitpid(pid, status, WNOHANG) ~= pid then return nil end
  return status[0]
end

local function fields(pid)
  local text = system.slurp(("/proc/%d/stat"):format(pid))
  if not text then return nil end
  local name, state, parent, _, session = text:match "^%d+ %((.*)%) (%a) (%d+) (%d+) (%d+)"
  return name, state, tonumber(parent), tonumber(session)
end

--- The members of a session that have not ended, by pid their names, but for `leader`.
function system.members(leader)
  local found = {}
  local process = assert(io.popen "ls /proc")
  for entry in process:lines() do
    local pid = entry:match "^%d+$" and tonumber(entry)
    if pid and pid ~= leader then
      local name, state, _, session = fields(pid)
      if session == leader and state ~= "Z" then found[pid] = name end
    end
  end
  process:close()
  return found
end

--- Send a signal to a process if it is still of a session: numbers come back soon where so many
--- processes end, and by now it may be somebody else's.
---@return boolean sent
function system.strike(session, pid, signal)
  local handle = C.syscall(SYS_PIDFD_OPEN, ffi.cast("int", pid), ffi.cast("int", 0))
  if handle < 0 then return false end
  local is_sent = select(4, fields(pid)) == session
    and C.syscall(SYS_PIDFD_SEND_SIGNAL, handle, ffi.cast("int", signal), ffi.cast("void *", nil),
      ffi.cast("int", 0)) == 0
  C.close(tonumber(handle))
  return is_sent
end

--- The letter of a process's state; nil if there is none.
function system.state(pid) return (select(2, fields(pid))) end

function system.name(pid) return (fields(pid)) end

function system.children(pid)
  local found = {}
  local text = system.slurp(("/proc/%d/task/%d/children"):format(pid, pid)) or ""
  for child in text:gmatch "%d+" do found[#found + 1] = tonumber(child) end
  return found
end

--- How many arenas a process has mapped, and how many descriptors it has. The
--- commons of shared objects are no arena: they live as long as the host.
function system.holdings(pid)
  local mapped, open = 0, 0
  for _ in (system.slurp(("/proc/%d/maps"):format(pid)) or ""):gmatch "memfd:tidemill " do
    mapped = mapped + 1
  end
  local process = assert(io.popen(("ls /proc/%d/fd 2>/dev/null"):format(pid)))
  for _ in process:lines() do open = open + 1 end
  process:close()
  return mapped, open
end

return system
