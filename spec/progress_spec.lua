-- Progress: a function's business, lines where there is no terminal, a bar where there is one.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local shell = require "support.shell"
local tidemill = require "tidemill"

local numbers = common.numbers

local function identity(x) return x end

local function counter(count)
  local n = 0
  return function()
    n = n + 1
    if n <= count then return n end
  end
end

--- A progress function, and the calls of it.
local function recorder()
  local calls = {}
  return function(done, total) calls[#calls + 1] = { done = done, total = total } end, calls
end

local function assert_complete(calls, count)
  assert.is_true(#calls >= 1)
  local before = 0
  for _, call in ipairs(calls) do
    assert.is_true(call.done >= before)
    assert.is_true(call.done <= count)
    if call.total then assert.equal(count, call.total) end
    before = call.done
  end
  assert.equal(count, calls[#calls].done)
  assert.equal(count, calls[#calls].total)
end

describe("a progress function", function()
  leaks.watch(after_each, assert)

  it("is called with what is done, at last with all, by every method", function()
    tidemill.with(2, function(pool)
      local tuples = {}
      for i = 1, 40 do tuples[i] = { i } end
      local calls_of = {
        map = function(options) pool:map(identity, numbers(40), options) end,
        range = function(options) pool:map(identity, tidemill.range(1, 40), options) end,
        iterator = function(options) pool:map(identity, counter(40), options) end,
        starmap = function(options) pool:starmap(identity, tuples, options) end,
        map_async = function(options) pool:map_async(identity, numbers(40), options):get() end,
        waited = function(options)
          local result = pool:map_async(identity, numbers(40), options)
          assert.is_true(result:wait(60))
        end,
        filter = function(options) pool:filter(identity, numbers(40), options) end,
        each = function(options) pool:each(identity, numbers(40), options) end,
        mapreduce = function(options)
          pool:mapreduce(identity, math.max, numbers(40), nil, options)
        end,
        imap = function(options) for _ in pool:imap(identity, numbers(40), options) do end end,
        imap_unordered = function(options)
          for _ in pool:imap_unordered(identity, numbers(40), options) do end
        end,
        imap_iterator = function(options)
          for _ in pool:imap(identity, counter(40), options) do end
        end,
      }
      for name, call in pairs(calls_of) do
        local progress, calls = recorder()
        call { progress = progress, chunksize = 3 }
        assert.is_true(#calls > 0, name)
        assert_complete(calls, 40)
      end
    end)
  end)

  it("hears of slow work while it goes on, and once of its end", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local calls, midway = {}, 0
      pool:map(function(x)
        if x == 20 then files.pass(gate) end
        return x
      end, numbers(20), { chunksize = 1, progress = function(done, total)
        calls[#calls + 1] = { done = done, total = total }
        if done == 19 then
          midway = midway + 1
          if midway == 3 then files.open(gate) end -- it goes on being called
        end
      end })
      assert_complete(calls, 20)
      local final = 0
      for _, call in ipairs(calls) do final = final + (call.done == 20 and 1 or 0) end
      assert.equal(1, final)
    end)
  end)

  it("counts items that failed as done", function()
    tidemill.with(2, function(pool)
      local progress, calls = recorder()
      pool:map(function(x)
        if x % 3 == 0 then error "no" end
        if x == 7 then os.exit(1) end
      end, numbers(30), { errors = "collect", progress = progress, chunksize = 4 })
      assert_complete(calls, 30)
    end)
  end)

  it("is called for nothing, too", function()
    tidemill.with(1, function(pool)
      for _, items in ipairs { {}, tidemill.range(1, 0), counter(0) } do
        local progress, calls = recorder()
        pool:map(identity, items, { progress = progress })
        assert_complete(calls, 0)
      end
    end)
  end)

  it("that raises ends its call, and harms nothing else", function()
    tidemill.with(2, function(pool)
      local ok, err = pcall(pool.map, pool, identity, numbers(100), { progress = function()
        error("progress", 0)
      end })
      assert.is_false(ok)
      assert.equal("progress", err)
      assert.same(numbers(100), pool:map(identity, numbers(100), 7))
    end)
  end)
end)

describe("progress", function()
  local script = [[
    local tidemill = require "tidemill"
    tidemill.with(2, function(pool)
      local options = %s
      pool:map(function(x) return x end, tidemill.range(1, 400), options)
      for _ in pool:imap(function(x) return x end, tidemill.range(1, 300), options) do end
    end)
    print "over"]]

  local function run(options, environment)
    local out, err, status = shell.run((environment or "") .. " TIDEMILL SCRIPT",
      script:format(options))
    assert.equal("over\n", out)
    assert.equal(0, status)
    return err
  end

  local function assert_lines(err, label)
    assert.is_truthy(err:find("^" .. label .. "400/400, [^\r\27]*\n"), err)
    assert.is_truthy(err:find("\n" .. label .. "300/300, [^\r\27]*\n$"), err)
  end

  it("is lines on standard error where there is no terminal", function()
    assert_lines(run "{ progress = true }", "")
    assert_lines(run "{ progress = 'mill' }", "mill: ")
  end)

  it("is there for all calls if the environment says so", function()
    assert_lines(run("{}", "TIDEMILL_PROGRESS=1"), "")
    assert_lines(run("{ chunksize = 7 }", "TIDEMILL_PROGRESS=1"), "")
    assert.equal("", run("{ progress = false }", "TIDEMILL_PROGRESS=1"))
  end)

  it("is not there unless it is wanted", function()
    assert.equal("", run "{}")
    assert.equal("", run("{ progress = true }", "TIDEMILL_PROGRESS=0"))
    assert.equal("", run("{ progress = 'mill' }", "TIDEMILL_PROGRESS=0"))
  end)

  it("is wanted by the command's option, too", function()
    local _, err, status = shell.run("TIDEMILL --progress SCRIPT", script:format "{}")
    assert.equal(0, status)
    assert_lines(err, "")
  end)

  it("does not silence functions by the environment", function()
    local out = shell.run("TIDEMILL_PROGRESS=0 TIDEMILL SCRIPT", [[
      local tidemill = require "tidemill"
      tidemill.with(1, function(pool)
        pool:map(math.abs, { 1, 2 }, {
          progress = function(done, total) last = done .. "/" .. total end,
        })
      end)
      print(last)]])
    assert.equal("2/2\n", out)
  end)

  it("is a bar on a terminal, drawn in place", function()
    if select(3, shell.run "script -qec true /dev/null </dev/null") ~= 0 then
      return pending "there is no script(1) to make a terminal"
    end
    local path = shell.script(script:format "{ progress = 'mill' }")
    local out = shell.run(("script -qec '%s %s' /dev/null </dev/null"):format(shell.command, path))
    os.remove(path)
    assert.is_truthy(out:find("\rmill: [########################] 100% 400/400", 1, true), out)
    assert.is_truthy(out:find("\rmill: [########################] 100% 300/300", 1, true), out)
    assert.is_truthy(out:find("over", 1, true))
    local _, ends = out:gsub("\27%[K\r?\n", "")
    assert.equal(2, ends) -- one line for each call
  end)

  it("leaves the terminal alone when errors are raised", function()
    local _, err, status = shell.run("TIDEMILL_PROGRESS=1 TIDEMILL SCRIPT", [[
      local pool = require "tidemill".pool(2)
      pool:map(function(x) if x == 5 then error "boom" end end, { 1, 2, 3, 4, 5 })]])
    assert.equal(1, status)
    assert.is_truthy(err:find("boom", 1, true))
    assert.is_truthy(err:find "^[^\n]*\n?tidemill: " or err:find "\ntidemill: ", err)
  end)
end)
