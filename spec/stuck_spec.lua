-- Workers that cannot be stopped, or go on, or not even die, for a while: nobody waits for them.

local common = require "support.common"
local ffi = require "ffi"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local assert_alive = common.assert_alive
local raised = common.raised

local LIMIT_S, SOON_S = 0.3, 20

pcall(ffi.cdef, [[
long ptrace(long request, int pid, void *address, void *data);
int waitpid(int pid, int *status, int options);
int mkfifo(const char *path, unsigned mode);
int open(const char *path, int flags, ...);
int close(int fd);
]])

--- Hold a worker as a debugger does that has fallen asleep: killed, it stays a zombie that its
--- parent cannot reap.
local function seize(pid)
  local PTRACE_SEIZE = 0x4206
  return ffi.C.ptrace(PTRACE_SEIZE, pid, nil, nil) == 0
end

--- Let go of it, after its end.
local function release(pid)
  local status, ALL = ffi.new "int[1]", 0x40000000
  assert.is_truthy(processes.eventually(SOON_S, function()
    local PTRACE_CONT = 7
    local found = ffi.C.waitpid(pid, status, ALL + 1)
    if found == pid and status[0] % 128 == 127 then ffi.C.ptrace(PTRACE_CONT, pid, nil, nil) end
    return found == -1
  end))
end

--- A call that notes its pid and goes on for ever.
local function endless(pool, options)
  local log = files.log()
  local result = pool:apply_async(function()
    files.note(log, require "tidemill".worker().pid)
    while true do end
  end, {}, options)
  files.await(log, 1)
  local pid = tonumber(files.lines(log)[1])
  os.remove(log)
  return result, pid
end

--- Wait in the kernel where no signal but SIGKILL is seen, until `fifo` is opened for writing: for
--- a child that has not come to its exec yet.
local function wait_uninterrupted(fifo)
  local C = require "ffi"
  pcall(C.cdef, [[
    int posix_spawn_file_actions_init(void *actions);
    int posix_spawn_file_actions_addopen(void *actions, int fd, const char *path, int flags,
      unsigned mode);
    int posix_spawn(int *pid, const char *path, const void *actions, const void *attributes,
      char *const argv[], char *const envp[]);]])
  local actions, pid = C.new "uint64_t[64]", C.new "int[1]"
  local argv, envp = C.new "char *[2]", C.new "char *[1]"
  argv[0] = C.cast("char *", "true")
  C.C.posix_spawn_file_actions_init(actions)
  C.C.posix_spawn_file_actions_addopen(actions, 0, fifo, 0, 0)
  return C.C.posix_spawn(pid, "/bin/true", actions, nil, argv, envp)
end

describe("a worker that waits where no stop reaches it", function()
  leaks.watch(after_each, assert)

  local fifo

  before_each(function()
    fifo = os.tmpname()
    os.remove(fifo)
    assert.equal(0, ffi.C.mkfifo(fifo, 384))
  end)

  --- End the children that wait for the fifo.
  after_each(function()
    local WRITE_NONBLOCK = 1 + 2048
    assert.is_truthy(processes.eventually(SOON_S, function()
      local fd = ffi.C.open(fifo, WRITE_NONBLOCK)
      if fd >= 0 then ffi.C.close(fd) end
      return fd < 0
    end))
    os.remove(fifo)
  end)

  local function await_wait(pool)
    assert.is_truthy(processes.eventually(SOON_S, function()
      return processes.state(pool:workers()[1] or 0) == "D"
    end))
  end

  it("is ended by a time limit", function()
    tidemill.with(1, function(pool)
      local result = pool:apply_async(wait_uninterrupted, { fifo }, { timeout = LIMIT_S })
      await_wait(pool)
      raised("timeout", result.get, result, SOON_S)
      assert_alive(pool)
    end)
  end)

  it("is ended by cancel", function()
    tidemill.with(1, function(pool)
      local result = pool:submit(wait_uninterrupted, fifo)
      await_wait(pool)
      assert.is_true(result:cancel())
      assert_alive(pool)
    end)
  end)

  it("is ended by terminate", function()
    local pool = tidemill.pool(1)
    local result = pool:submit(wait_uninterrupted, fifo)
    await_wait(pool)
    pool:terminate()
    assert.is_true(pool:join(SOON_S))
    assert.equal("terminated", select(2, result:try(0)).kind)
  end)
end)

describe("a worker that is killed and cannot die", function()
  leaks.watch(after_each, assert)

  --- Have the worker stay after its death, until the end of the test.
  local function hold(pid)
    if not seize(pid) then pending "no process may be traced here" end
    finally(function() release(pid) end)
  end

  it("has timed out, and is replaced", function()
    tidemill.with(2, function(pool)
      local result, pid = endless(pool, { timeout = LIMIT_S })
      hold(pid)
      local err = raised("timeout", result.get, result, SOON_S)
      assert.equal(pid, err.pid)
      assert.is_truthy(processes.eventually(SOON_S, function() return #pool:workers() == 2 end))
      for _, worker in ipairs(pool:workers()) do assert.not_equal(pid, worker) end
      assert_alive(pool)
      assert.equal("Z", processes.state(pid))
    end)
  end)

  it("was cancelled, and is replaced", function()
    tidemill.with(1, function(pool)
      local result, pid = endless(pool)
      hold(pid)
      assert.is_true(result:cancel())
      assert_alive(pool)
      assert.not_equal(pid, pool:workers()[1])
    end)
  end)

  it("holds up no terminate", function()
    local pool = tidemill.pool(2)
    local result, pid = endless(pool)
    hold(pid)
    pool:terminate()
    assert.is_true(pool:join(SOON_S))
    assert.equal("terminated", select(2, result:try(0)).kind)
    tidemill.with(1, assert_alive) -- by the same supervisor
  end)

  it("holds up no end of a supervisor", function()
    local function abandon()
      local _, pid = endless(tidemill.pool { processes = 1, inherit = true }) -- it has its own
      hold(pid)
      return pid
    end
    local pid, before = abandon(), processes.clock()
    collectgarbage()
    collectgarbage()
    assert.is_true(processes.clock() - before < SOON_S)
    assert.equal("Z", processes.state(pid))
  end)
end)

describe("a worker that is stopped when it is to leave", function()
  leaks.watch(after_each, assert)

  local function stop(pid)
    assert.is_true(processes.kill(pid, processes.SIGSTOP))
    assert.is_truthy(processes.eventually(SOON_S, function()
      return processes.state(pid) == "T"
    end))
  end

  --- Note when a worker leaves by itself, after `hinder` was called.
  local function initialize(log, hinder)
    LEAVING = newproxy(true) -- luacheck: ignore
    getmetatable(LEAVING).__gc = function() -- luacheck: ignore
      if hinder then hinder() end
      files.note(log, "left")
    end
  end

  local log

  before_each(function() log = files.log() end)
  after_each(function() os.remove(log) end)

  it("holds up no join, and leaves by itself", function()
    for _, timeout in ipairs { false, 1 } do
      local options = { processes = 2, timeout = timeout or nil, initializer = initialize,
        initargs = { log } }
      tidemill.with(options, function(pool)
        pool:map(math.abs, { 1, 2, 3 }, 1)
        stop(pool:workers()[1])
      end)
    end
    files.await(log, 4)
  end)

  it("holds up no join when it was stopped later", function()
    local pool = tidemill.pool { processes = 1, initializer = initialize,
      initargs = { log, function() files.pass(log .. "~") end } }
    io.open(log .. "~", "w"):close()
    local pid = pool:workers()[1]
    pool:close()
    assert.is_false(pool:join(0.1))
    stop(pid)
    os.remove(log .. "~")
    assert.is_true(pool:join(SOON_S))
    files.await(log, 1)
  end)

  it("is killed if it is stopped again and again, and not replaced", function()
    local pool = tidemill.pool { processes = 2, initializer = initialize,
      initargs = { log, function()
        local C = require "ffi"
        C.cdef "int getpid(void); int kill(int, int);"
        while true do C.C.kill(C.C.getpid(), 19) end
      end } }
    pool:close()
    assert.is_true(pool:join(SOON_S))
    assert.same({}, files.lines(log))
  end)

  it("holds up no end of a process that has done its part", function()
    local process = tidemill.process(function(path)
      initialize(path, function() require "support.files".pass(path .. "~") end)
    end, { log })
    io.open(log .. "~", "w"):close()
    process:start()
    assert.is_false(process:join(0.2))
    stop(process.pid)
    os.remove(log .. "~")
    assert.is_true(process:join(SOON_S))
    files.await(log, 1)
  end)

  it("leaves when the pool has become smaller", function()
    tidemill.with({ processes = 3, initializer = initialize, initargs = { log } }, function(pool)
      stop(pool:workers()[3])
      pool:resize(1)
      files.await(log, 2)
      assert_alive(pool)
    end)
  end)

  it("keeps the item that it has in hand", function()
    local gate = files.gate()
    tidemill.with(2, function(pool)
      local results, pids = {}, {}
      for i = 1, 2 do
        results[i] = pool:submit(function(n)
          files.note(log, ("%d %d"):format(n, require "tidemill".worker().pid))
          files.pass(gate)
          return n
        end, i)
      end
      files.await(log, 2)
      local last = pool:workers()[2]
      stop(last)
      pool:resize(1)
      files.nap(0.7)
      assert.equal("T", processes.state(last))
      processes.kill(last, processes.SIGCONT)
      files.open(gate)
      for i = 1, 2 do assert.equal(i, results[i]:get(SOON_S)) end
      for _, line in ipairs(files.lines(log)) do pids[#pids + 1] = line:match " (%d+)" end
      assert.equal(2, #pids)
      assert.is_truthy(processes.eventually(SOON_S, function() return #pool:workers() == 1 end))
    end)
  end)

  it("is killed by terminate", function()
    local pool = tidemill.pool(2)
    stop(pool:workers()[2])
    pool:close()
    pool:terminate()
    assert.is_true(pool:join(SOON_S))
  end)
end)
