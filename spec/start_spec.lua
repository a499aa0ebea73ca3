-- How workers come to be: as fresh states, as copies of the script's, or of an executed supervisor;
-- and how many there are.

local leaks = require "support.leaks"
local processes = require "support.processes"
local shell = require "support.shell"
local tidemill = require "tidemill"

local function square(x) return x * x end

describe("a pool that inherits", function()
  setup(function()
    rawset(_G, "inherited_table", setmetatable({}, { __index = function(_, k) return k * 2 end }))
    rawset(_G, "inherited_function", function(x) return _G.inherited_table[x] + 1 end)
  end)
  teardown(function()
    rawset(_G, "inherited_table", nil)
    rawset(_G, "inherited_function", nil)
  end)
  leaks.watch(after_each, assert)

  it("has the script's globals and modules in its workers, without sending them", function()
    rawset(_G, "inherited_thread", coroutine.create(square)) -- could not be sent
    package.loaded["inherited.module"] = { answer = 42 }
    tidemill.with({ processes = 2, inherit = true }, function(pool)
      local function call(x) return _G.inherited_function(x) end
      assert.same({ 3, 5, 7 }, pool:map(call, { 1, 2, 3 }))
      assert.equal("thread", pool:apply(function() return type(_G.inherited_thread) end))
      assert.equal(42, pool:apply(function() return require "inherited.module".answer end))
    end)
    package.loaded["inherited.module"] = nil
    rawset(_G, "inherited_thread", nil)
  end)

  it("sees the script as it was when the pool was made, also in replacements", function()
    rawset(_G, "inherited_number", 1)
    tidemill.with({ processes = 1, inherit = true }, function(pool)
      rawset(_G, "inherited_number", 2)
      local function read() return _G.inherited_number end
      assert.equal(1, pool:apply(read))
      assert.equal("worker", select(2, pcall(pool.apply, pool, function() os.exit(1) end)).kind)
      assert.equal(1, pool:apply(read))
    end)
    rawset(_G, "inherited_number", nil)
  end)

  it("keeps what a task changes to its worker", function()
    tidemill.with({ processes = 1, inherit = true }, function(pool)
      pool:apply(function() rawset(_G, "changed_in_worker", true) end)
      assert.is_true(pool:apply(function() return rawget(_G, "changed_in_worker") end))
      assert.is_nil(rawget(_G, "changed_in_worker"))
    end)
  end)

  it("still sends upvalues, runs initializers and makes pools of its own", function()
    local factor = 3
    tidemill.with({
      processes = 2, inherit = true, initializer = function(x) rawset(_G, "started", x) end,
      initargs = { 5 },
    }, function(pool)
      assert.same({ 8, 11 }, pool:map(function(x) return x * factor + rawget(_G, "started") end,
        { 1, 2 }))
      assert.equal(49, pool:apply(function()
        return require "tidemill".with(1, function(inner)
          return inner:apply("x -> x * x", { 7 })
        end)
      end))
    end)
  end)

  it("leaves the pools of the script alone in its workers", function()
    tidemill.with(2, function(outer)
      local pending = outer:apply_async("x -> x + 1", { 1 })
      tidemill.with({ processes = 1, inherit = true }, function(pool)
        rawset(_G, "outer_pool", outer)
        local ok, err = pcall(pool.apply, pool, function()
          collectgarbage()
          return tidemill.is_error(nil)
        end)
        assert.is_true(ok, tostring(err))
        rawset(_G, "outer_pool", nil)
      end)
      assert.equal(2, pending:get())
      assert.same({ 1, 4 }, outer:map(square, { 1, 2 }))
    end)
  end)

  it("is not to be had with a spawned supervisor", function()
    local ok, err = pcall(tidemill.pool, { inherit = true, start_method = "spawn" })
    assert.is_false(ok)
    assert.is_truthy(err:find("inherit", 1, true))
  end)
end)

-- In processes of their own: a spawned supervisor stays as long as its host.
describe("a spawned pool", function()
  local function run(text)
    local out, err, status = shell.run("TIDEMILL SCRIPT", text)
    assert.equal("", err)
    assert.equal(0, status)
    return out
  end

  it("does what another does", function()
    assert.equal("1 4 9\nworker\n1 4 9\n", run [[
      local tidemill = require "tidemill"
      tidemill.with({ processes = 2, start_method = "spawn" }, function(pool)
        local function square(x) return x * x end
        print(table.concat(pool:map(square, { 1, 2, 3 }), " "))
        print(select(2, pcall(pool.apply, pool, function() os.exit(3) end)).kind)
        print(table.concat(pool:map(square, { 1, 2, 3 }), " "))
      end)]])
  end)

  it("has a supervisor of its own, that others share", function()
    assert.equal("true\tfalse\n", run [[
      local tidemill = require "tidemill"
      local function parent()
        for line in io.lines "/proc/self/status" do
          local pid = line:match "^PPid:%s*(%d+)"
          if pid then return pid end
        end
      end
      local a = tidemill.pool { processes = 1, start_method = "spawn" }
      local b = tidemill.pool { processes = 1, start_method = "spawn" }
      local forked = tidemill.pool(1)
      local supervisor = a:apply(parent)
      print(supervisor == b:apply(parent), supervisor == forked:apply(parent))]])
  end)

  it("is refused with the way to set it right where there is no command", function()
    local out = run [[
      os.getenv = function() end
      package.searchpath = function() return nil, "no" end
      package.loaded["tidemill.core"].program = function() return "/bin/other" end
      local ok, problem = pcall(require "tidemill".pool, { start_method = "spawn" })
      print(ok, problem)]]
    assert.is_truthy(out:find("^false.*TIDEMILL_COMMAND"), out)
  end)
end)

describe("resize", function()
  leaks.watch(after_each, assert)

  local function ids(pool)
    local list = pool:broadcast(function() return require "tidemill".worker().id end)
    table.sort(list)
    return list
  end

  it("starts workers and sends them away", function()
    tidemill.with(2, function(pool)
      assert.same({ 1, 2 }, ids(pool))
      pool:resize(5)
      assert.same({ 1, 2, 3, 4, 5 }, ids(pool))
      assert.equal(5, pool.processes)
      pool:resize(1)
      assert.same({ 1 }, ids(pool))
      assert.is_truthy(processes.eventually(5, function() return #pool:workers() == 1 end))
      pool:resize(3)
      assert.same({ 1, 2, 3 }, ids(pool))
    end)
  end)

  it("loses nothing of the work that goes on", function()
    tidemill.with(1, function(pool)
      local count, sum = 0, 0
      for i, value in pool:imap_unordered(square, tidemill.range(1, 2000), 3) do
        count, sum = count + 1, sum + value - i * i
        if i % 100 == 0 then pool:resize(1 + i / 100 % 4) end
      end
      assert.equal(2000, count)
      assert.equal(0, sum)
    end)
  end)

  it("checks its argument and the pool", function()
    tidemill.with(2, function(pool)
      for _, bad in ipairs { 0, -1, 1.5, "2", 1e6 } do
        local ok, err = pcall(pool.resize, pool, bad)
        assert.is_false(ok)
        assert.is_truthy(tostring(err):find("pool:resize", 1, true), tostring(err))
      end
      assert.same({ 1, 2 }, ids(pool))
      pool:close()
      assert.equal("closed", select(2, pcall(pool.resize, pool, 3)).kind)
    end)
  end)
end)

describe("an event loop", function()
  leaks.watch(after_each, assert)

  it("finds the descriptor readable when there is something to do, and only then", function()
    local ffi = require "ffi"
    ffi.cdef [[
      struct tide_spec_pollfd { int fd; short events, revents; };
      int poll(struct tide_spec_pollfd *, unsigned long, int);
    ]]
    local one = ffi.new("struct tide_spec_pollfd[1]")
    tidemill.with(2, function(pool)
      one[0].fd, one[0].events = pool:fd(), 1
      assert.equal(pool:fd(), pool:fd())
      local told = 0
      pool:broadcast(square, 1) -- all workers are up and have said so
      while pool:poll() or ffi.C.poll(one, 1, 0) > 0 do end
      assert.equal(0, ffi.C.poll(one, 1, 50))
      for round = 1, 50 do
        pool:apply_async(square, { round }, { callback = function(x)
          assert.equal(round * round, x)
          told = told + 1
        end })
        while told < round do
          assert.equal(1, ffi.C.poll(one, 1, 10000))
          pool:poll()
        end
      end
      assert.is_false(pool:poll())
    end)
  end)

  it("may leave the waiting to poll itself", function()
    tidemill.with(2, function(pool)
      local done = 0
      for i = 1, 20 do
        pool:apply_async(square, { i }, { callback = function() done = done + 1 end })
      end
      while pool:poll(10) do end
      assert.equal(20, done)
      local before = tidemill.clock()
      assert.is_false(pool:poll(0.02))
      assert.is_true(tidemill.clock() - before < 5)
    end)
  end)
end)

describe("a function that is used again", function()
  leaks.watch(after_each, assert)

  it("is never a stale one: upvalues, globals and what they hold are looked at", function()
    local number, list = 1, { 1 }
    local function with_upvalue() return number end
    local function with_table() return list[1] end
    rawset(_G, "spec_global", 1)
    local with_global = setfenv(loadstring "return spec_global", _G)
    tidemill.with(1, function(pool)
      for round = 1, 5 do
        number, list[1] = round, round
        rawset(_G, "spec_global", round)
        for _ = 1, 3 do
          assert.equal(round, pool:apply(with_upvalue))
          assert.equal(round, pool:apply(with_table))
          assert.equal(round, pool:apply(with_global))
        end
      end
      rawset(_G, "spec_global", nil)
      assert.is_nil(pool:apply(with_global))
      debug.setupvalue(with_upvalue, 1, "changed")
      assert.equal("changed", pool:apply(with_upvalue))
      number = nil
      assert.is_nil(pool:apply(with_upvalue))
    end)
  end)

  it("sees a library function that was replaced in between", function()
    local f = setfenv(function(x) return math.floor(x) end, _G)
    local original = math
    tidemill.with(1, function(pool)
      for _ = 1, 3 do assert.equal(2, pool:apply(f, { 2.5 })) end
      rawset(_G, "math", { floor = function() return "mine" end })
      local ok, value = pcall(pool.apply, pool, f, { 2.5 })
      rawset(_G, "math", original)
      assert.is_true(ok, tostring(value))
      assert.equal("mine", value)
      assert.equal(2, pool:apply(f, { 2.5 }))
    end)
  end)
end)
