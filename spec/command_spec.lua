local processes = require "support.processes"

local command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")

local function write(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- Run a shell line in which TIDEMILL stands for the command.
---@return string stdout, string stderr, integer status
local function run(line)
  local errors = os.tmpname()
  local process = assert(io.popen(("{ %s ; } 2>%s; echo \" status $?\""):format(
    (line:gsub("TIDEMILL%f[%s%z]", command)), errors)))
  local output = process:read "*a"
  process:close()
  local file = assert(io.open(errors))
  local stderr = file:read "*a"
  file:close()
  os.remove(errors)
  local text, status = output:match "^(.*) status (%d+)\n$"
  return text, stderr, tonumber(status)
end

describe("the command", function()
  it("runs a script with its arguments", function()
    local path = write [[print(arg[0] ~= nil, arg[1], arg[2], #arg, ...) print(arg[-1] ~= nil)]]
    local out, err, status = run("TIDEMILL " .. path .. " a -j")
    assert.equal("true\ta\t-j\t2\ta\t-j\ntrue\n", out)
    assert.equal("", err)
    assert.equal(0, status)
    os.remove(path)
  end)

  it("reads a script from standard input", function()
    local out, _, status = run [[echo 'print(..., "in")' | TIDEMILL - x]]
    assert.equal("x\tin\n", out)
    assert.equal(0, status)
  end)

  it("runs -e and -l in their order, then the script", function()
    local path = write "print(n, lpeg.type(lpeg.P(1)))"
    local out, _, status = run("TIDEMILL -e 'n = 1' -l lpeg -e 'n = n + 1' " .. path)
    assert.equal("2\tpattern\n", out)
    assert.equal(0, status)
    os.remove(path)
  end)

  it("lets -j and TIDEMILL_PROCESSES say how many workers", function()
    local code = [[-e 'local t = require "tidemill" t.with(function(p) print(#p:workers()) end)']]
    assert.equal("3\n", (run("TIDEMILL -j 3 " .. code)))
    assert.equal("2\n", (run("TIDEMILL_PROCESSES=2 TIDEMILL " .. code)))
    assert.equal("4\n", (run("TIDEMILL_PROCESSES=2 TIDEMILL -j4 " .. code)))
  end)

  it("prints its version and help", function()
    assert.is_truthy((run "TIDEMILL -v"):find("^Tidemill %d+%.%d+%.%d+ %(LuaJIT"))
    local out, err, status = run "TIDEMILL -h"
    assert.is_truthy(out:find("usage: tidemill", 1, true))
    assert.equal("", err)
    assert.equal(0, status)
  end)

  it("says in one line what is wrong with its use, and exits 2", function()
    for _, line in ipairs { "", "-x", "-j", "-j 0", "-j two", "-e", "-l" } do
      local out, err, status = run("TIDEMILL " .. line)
      assert.equal("", out)
      assert.is_truthy(err:find "^[^\n]+\n$", err)
      assert.equal(2, status)
    end
  end)

  it("exits 1 with the traceback if the script raises, or is not there", function()
    local path = write "local function f() error 'boom' end\nf()"
    local _, err, status = run("TIDEMILL " .. path)
    assert.equal(1, status)
    assert.is_truthy(err:find(path .. ":1: boom", 1, true), err)
    assert.is_truthy(err:find(path .. ":2: in main chunk", 1, true), err)
    os.remove(path)
    for _, line in ipairs { "/no/such/script.lua", "-e 'x ='", "-l no.such", "-e 'error({})'" } do
      _, err, status = run("TIDEMILL " .. line)
      assert.equal(1, status)
      assert.is_truthy(err:find("^tidemill: "), err)
    end
  end)

  it("shows an error of a job with the worker's traceback", function()
    local path = write [[
      require("tidemill").with(2, function(pool)
        pool:map(function(x)
          if x == 3 then error("no " .. x) end
        end, { 1, 2, 3 })
      end)]]
    local _, err, status = run("TIDEMILL " .. path)
    assert.equal(1, status)
    assert.is_truthy(err:find(path .. ":3: no 3 (item 3, worker ", 1, true), err)
    assert.is_truthy(err:find("in the worker: stack traceback:", 1, true), err)
    os.remove(path)
  end)

  it("exits as os.exit says, and loses no output", function()
    local out, _, status = run [[TIDEMILL -e 'io.write("unflushed") os.exit(7)']]
    assert.equal("unflushed", out)
    assert.equal(7, status)
    out = run [[TIDEMILL -e 'io.write("before ") local t = require "tidemill"
      t.with(2, function(p)
        io.write("with ")
        p:map(function(x) io.write("job ") end, {1, 2, 3})
      end)
      io.write("after")']]
    assert.equal(3, select(2, out:gsub("job ", "")))
    for _, word in ipairs { "before ", "with ", "after" } do
      assert.equal(1, select(2, out:gsub(word, "")))
    end
  end)

  it("says that its output cannot be written", function()
    local _, err, status = run "TIDEMILL -e 'print(1)' >/dev/full"
    assert.equal(1, status)
    assert.is_truthy(err:find("cannot write output", 1, true), err)
  end)

  -- Start a script in a session of its own, wait for its mark, interrupt the whole group.
  local function interrupt(code)
    local mark, errors = os.tmpname(), os.tmpname()
    os.remove(mark)
    local path = write(([[
      local tidemill = require "tidemill"
      local pool = tidemill.pool(2)
      io.write "unflushed\n"
      local ffi = require "ffi"
      ffi.cdef "int getpid(void); int poll(void *, unsigned long, int);"
      local file = io.open("%s", "w")
      file:write(ffi.C.getpid())
      file:close()
    ]]):format(mark .. "~") .. ("os.rename('%s~', '%s')\n"):format(mark, mark) .. code)
    local process = assert(io.popen(("setsid -w %s %s 2>%s; echo status $?")
      :format(command, path, errors)))
    local file = assert(processes.eventually(10, function() return io.open(mark) end))
    local group = tonumber(file:read "*l")
    file:close()
    assert.is_true(processes.kill(-group, processes.SIGINT))
    local output = process:read "*a"
    process:close()
    file = io.open(errors)
    local err = file:read "*a"
    file:close()
    for _, name in ipairs { path, errors, mark } do os.remove(name) end
    return output, err, group
  end

  local interrupted = {
    ["waits for busy workers"] = "pool:map(function() while true do end end, { 1, 2, 3 })",
    ["computes in compiled code"] = "local n = 0 while true do n = n + 1 end",
    ["catches every error"] = "local function f() while true do end end "
      .. "while true do pcall(pool.map, pool, f, { 1 }) end",
    ["sits in a system call"] = "ffi.C.poll(nil, 0, 20000)",
  }
  for what, code in pairs(interrupted) do
    it("ends with one line and 130 on Ctrl-C when the script " .. what, function()
      local output, err, group = interrupt(code)
      assert.equal("tidemill: interrupted\n", err)
      assert.equal("unflushed\nstatus 130\n", output)
      assert.is_true(processes.eventually(5, function() return not processes.kill(-group, 0) end))
    end)
  end
end)

describe("the module", function()
  it("is found by a stock luajit in the build tree", function()
    local out = run(([[LUA_CPATH='%s/?.so;;' luajit -e 'local t = require "tidemill"
      print(t.with(2, function(p) return unpack(p:map("x -> x + 1", { 1, 2 })) end))']])
      :format(os.getenv "TIDEMILL_BUILD"))
    assert.equal("2\t3\n", out)
  end)

  it("counts at least one processor", function()
    local tidemill = require "tidemill"
    assert.is_true(tidemill.cpu_count() >= 1)
    assert.equal("1\n", (run [[taskset -c 0 TIDEMILL -e 'print(require("tidemill").cpu_count())']]))
    assert.is_nil(tidemill.worker())
    tidemill.with({ processes = 2, name = "mine" }, function(pool)
      local worker = pool:apply(function() return require("tidemill").worker() end)
      assert.is_true(worker.id == 1 or worker.id == 2)
      assert.equal("mine", worker.pool)
    end)
  end)
end)
