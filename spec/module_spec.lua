-- The module in a host of its own: what it starts, what its workers are, what it costs.

local ffi = require "ffi"
local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

ffi.cdef "long readlink(const char *path, char *out, size_t size);"

local function stock(code)
  local path = shell.script(code)
  local out, err, status = shell.run(("LUA_CPATH='%s/?.so;;' luajit %s"):format(shell.build, path))
  os.remove(path)
  assert.equal("", err)
  assert.equal(0, status)
  return out
end

describe("the module", function()
  leaks.watch(after_each, assert)

  it("can be required by a stock luajit from the build tree", function()
    local out = stock [[
      local tidemill = require "tidemill"
      assert(tidemill == require "tidemill")
      local n = 10
      print(unpack(tidemill.pool(2):map(function(x) return x + n end, { 1, 2, 3 })))]]
    assert.equal("11\t12\t13\n", out)
  end)

  it("starts one process and keeps to it, however many pools there are", function()
    local before = processes.children(processes.self())
    assert.equal(1, #before)
    assert.equal("tidemill-super", processes.name(before[1]))
    tidemill.with(2, function()
      tidemill.with(3, function()
        assert.same(before, processes.children(processes.self()))
        assert.equal(5, #processes.children(before[1]))
      end)
    end)
    assert.same(before, processes.children(processes.self()))
  end)

  it("starts a supervisor of a few megabytes, also for a large host", function()
    local out = stock [[
      local tidemill = require "tidemill"
      local large = {}
      for i = 1, 1e6 do large[i] = { i } end
      local pool = tidemill.pool(2)
      pool:map(math.abs, { 1, 2 })
      for _, pid in ipairs(pool:workers()) do
        print((io.open("/proc/" .. pid .. "/status"):read "*a":match "VmRSS:%s+(%d+)"))
      end]]
    for resident in out:gmatch "%d+" do assert.is_true(tonumber(resident) < 16 * 1024, out) end
  end)

  it("counts at least one processor, and no more than there are", function()
    local count = tidemill.cpu_count()
    assert.is_true(count >= 1 and count % 1 == 0)
    local configured = tonumber((shell.run "nproc --all"))
    assert.is_true(count <= configured)
    assert.equal("1\n", (shell.run
      [[taskset -c 0 TIDEMILL -e 'print(require("tidemill").cpu_count())']]))
  end)

  it("tells what is an error, and what is no worker", function()
    assert.is_nil(tidemill.worker())
    local _, err = pcall(tidemill.decode, "")
    assert.is_true(tidemill.is_error(err))
    for _, value in ipairs { {}, "text", 1, setmetatable({}, {}), print } do
      assert.is_false(tidemill.is_error(value))
    end
    assert.is_false(tidemill.is_error(nil))
    assert.is_string(tidemill._VERSION)
  end)

  it("lets error objects travel and stay what they are", function()
    local _, err = pcall(tidemill.decode, "")
    tidemill.with(1, function(pool)
      local is, kind, back = pool:apply(function(e)
        return require("tidemill").is_error(e), e.kind, e
      end, { err })
      assert.is_true(is)
      assert.equal("decode", kind)
      assert.is_true(tidemill.is_error(back))
    end)
  end)
end)

describe("a worker", function()
  leaks.watch(after_each, assert)

  local function in_worker(f, ...)
    local args = { n = select("#", ...), ... }
    return tidemill.with(1, function(pool) return pool:apply(f, args) end)
  end

  it("holds standard input, output, error and two descriptors more", function()
    local open = in_worker(function()
      local C = require "ffi"
      pcall(C.cdef, "long readlink(const char *path, char *out, size_t size);")
      local found, buffer = {}, C.new "char[256]"
      for fd = 0, 255 do
        local size = C.C.readlink("/proc/self/fd/" .. fd, buffer, 256)
        if size > 0 then found[#found + 1] = fd .. " " .. C.string(buffer, size) end
      end
      return found
    end)
    assert.equal(5, #open, table.concat(open, "\n"))
    assert.equal("0 /dev/null", open[1])
    assert.is_truthy(open[4]:find("eventfd", 1, true))
    assert.is_truthy(open[5]:find("tidemill-commons", 1, true))
  end)

  it("ignores Ctrl-C, and no other signal; blocks none", function()
    local status = in_worker(function() return (io.open "/proc/self/status"):read "*a" end)
    local blocked, ignored = status:match "SigBlk:%s+(%x+)", status:match "SigIgn:%s+(%x+)"
    assert.equal(0, tonumber(blocked, 16))
    assert.equal(2 ^ (processes.SIGINT - 1), tonumber(ignored, 16))
  end)

  it("has the script's directory and search paths, and none of its globals", function()
    rawset(_G, "spec_global", 1)
    local path, cpath, cwd, global = in_worker(loadstring [[
      local process = io.popen "pwd"
      local cwd = process:read "*l"
      process:close()
      return package.path, package.cpath, cwd, rawget(_G, "spec_global")]])
    rawset(_G, "spec_global", nil)
    assert.equal(package.path, path)
    assert.equal(package.cpath, cpath)
    assert.equal((shell.run "pwd"), cwd .. "\n")
    assert.is_nil(global)
  end)

  it("can run other programs and read their answers", function()
    assert.equal("hello", in_worker(function()
      local process = io.popen "echo hello; cat"
      local text = process:read "*l"
      process:close()
      return text
    end))
  end)

  it("bears a name of its own", function()
    tidemill.with(2, function(pool)
      for i, pid in ipairs(pool:workers()) do
        assert.is_true(processes.eventually(5, function()
          return processes.name(pid) == "tidemill-w" .. i
        end))
      end
    end)
  end)
end)

describe("a module loaded by two names", function()
  it("travels by the shorter, of which the longer may be a part", function()
    for _ = 1, 4 do -- in which order they are met differs from process to process
      local out, err = shell.run("TIDEMILL SCRIPT", [[
        local socket = require "socket" -- the table of socket.core, and more
        require "tidemill".with(1, function(pool)
          print(pool:apply(function() return type(socket.bind) end))
        end)]])
      assert.equal("function\n", out, err)
    end
  end)
end)

describe("memory", function()
  leaks.watch(after_each, assert)

  -- A sanitizer holds back what was freed.
  local sanitized = (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true)
  local ROUNDS, SLACK_KB = 5, sanitized and 65536 or 3072

  --- Resident memory of this process and the workers, after the second round and the last.
  local function flat(work, slack_kb)
    tidemill.with(2, function(pool)
      local second
      for round = 1, ROUNDS do
        work(pool)
        collectgarbage()
        collectgarbage()
        local sum = processes.resident(processes.self())
        for _, pid in ipairs(pool:workers()) do sum = sum + processes.resident(pid) end
        if round == 2 then second = sum end
        if round == ROUNDS then
          local grown = sum - second
          assert.is_true(grown < (slack_kb or SLACK_KB), ("grew by %d KB"):format(grown))
        end
      end
    end)
  end

  it("is flat over a million tasks", function()
    flat(function(pool)
      for _ = 1, 2 do
        pool:map(function(x) return x + 1 end, tidemill.range(1, 80000), 1)
        pool:map(function(x) return { x } end, tidemill.range(1, 20000), 4)
      end
    end)
  end)

  it("is flat over calls with strings and tables", function()
    flat(function(pool)
      for i = 1, 100 do
        local results = {}
        for k = 1, 50 do
          results[k] = pool:submit(function(t) return { #t.text, t } end,
            { text = ("x"):rep(100 * k), i })
        end
        for k = 1, 50 do results[k]:get() end
      end
    end)
  end)

  it("is flat over new functions and errors", function()
    flat(function(pool)
      local function make(i) return function(x) return x * i end end
      for i = 1, 1500 do
        pool:map(make(i), { 1, 2 })
        pool:submit(error, { i }):wait()
      end
    end)
  end)

  it("is flat over large values", function()
    local text = ("x"):rep(1024 * 1024)
    flat(function(pool)
      for _ = 1, 30 do pool:apply(function(t) return t .. "!" end, { text }) end
    end, 30 * 1024) -- a worker collects when it sees fit
  end)

  it("is flat over pools that come and go", function()
    local function round()
      for i = 1, 60 do
        local pool = tidemill.pool(2)
        pool:map(math.abs, { 1, 2, 3 })
        if i % 2 == 0 then
          pool:close()
          pool:join()
        end
      end
      collectgarbage()
      collectgarbage()
      local supervisor = processes.children(processes.self())[1]
      return processes.resident(processes.self()) + processes.resident(supervisor)
    end
    round()
    local second = round()
    for _ = 1, 3 do round() end
    assert.is_true(round() - second < SLACK_KB)
  end)
end)
