-- The words of errors: the one place that pins them. Elsewhere `kind` is compared.

local leaks = require "support.leaks"
local tidemill = require "tidemill"

local function identity(x) return x end

--- The error's words, numbers of processes left out.
local function words(ok, err)
  assert.is_false(ok)
  return (err.message:gsub("pid %d+", "pid N"):gsub("worker %d+", "worker N"))
end

describe("the text of an error", function()
  leaks.watch(after_each, assert)

  it("says what became of the work", function()
    local pool = tidemill.pool(1)
    assert.equal("raised", words(pool:submit(error, "raised", 0):try()))
    assert.equal("worker N (pid N) ended with exit code 4 while it ran the call",
      words(pool:submit(os.exit, 4):try()))
    assert.equal("worker N (pid N) ended with exit code 4 while it ran item 2",
      words(pcall(pool.map, pool, function(x) if x == 4 then os.exit(x) end end, { 3, 4 })))
    local endless = pool:submit(function() while true do end end)
    assert.equal("no reply in 0.01 s", words(endless:try(0.01)))
    pool:terminate()
    assert.equal("the pool was terminated", words(endless:try()))
    assert.equal("pool:map: the pool is terminated", words(pcall(pool.map, pool, identity, {})))
    tidemill.with(1, function(closed)
      closed:close()
      assert.equal("pool:submit: the pool is closed", words(pcall(closed.submit, closed, identity)))
    end)
  end)

  it("says by its path what cannot travel", function()
    local thread = coroutine.create(identity)
    local function hold() return thread end
    local line = debug.getinfo(hold, "S").linedefined
    local spec = debug.getinfo(1, "S").short_src
    tidemill.with(1, function(pool)
      local path = ("upvalue 'thread' of function <%s:%d>"):format(spec, line)
      assert.equal(("cannot send %s: a coroutine"):format(path),
        words(pcall(pool.map, pool, hold, { 1 })))
      assert.equal("cannot send item 2: field a.b[3]: a coroutine",
        words(pcall(pool.map, pool, identity, { 1, { a = { b = { 1, 2, thread } } } })))
      assert.equal("cannot send result, field out: a coroutine", words(pool:submit(function()
        return { out = coroutine.create(function() end) }
      end):try()))
      assert.equal("cannot send item 1: a number, where a table of arguments is needed",
        words(pcall(pool.starmap, pool, identity, { 1 })))
    end)
    assert.equal("cannot send a coroutine", words(pcall(tidemill.encode, thread)))
    assert.equal("cannot decode: the bytes are damaged", words(pcall(tidemill.decode, "")))
    assert.equal("cannot decode: the bytes are of version 2 of the format, and this is version 1",
      words(pcall(tidemill.decode, "\2" .. tidemill.encode(1):sub(2))))
    assert.equal("cannot decode: bytes are left over",
      words(pcall(tidemill.decode, tidemill.encode(1) .. "\0")))
  end)

  it("says how a call has to be", function()
    local function refused(f, ...)
      local ok, err = pcall(f, ...)
      assert.is_false(ok)
      return (err:gsub("^.-:%d+: ", ""))
    end
    assert.equal("tidemill.pool: give a number or options: processes goes among them",
      refused(tidemill.pool, 2, { timeout = 1 }))
    assert.equal("tidemill.pool: call it with a dot", refused(tidemill.pool, tidemill, 2))
    assert.equal("tidemill.range: last must be a finite number, got nil",
      refused(tidemill.range, 5))
    assert.equal("tidemill.pool: memory_limit must be a number of bytes from 1048576, got 64",
      refused(tidemill.pool, { memory_limit = 64 }))
    assert.equal("tidemill.pool: initargs are for an initializer, and there is none",
      refused(tidemill.pool, { initargs = { 1 } }))
    tidemill.with(1, function(pool)
      assert.equal("pool:mapreduce: options go after init, which may be nil",
        refused(pool.mapreduce, pool, identity, identity, { 1 }, { chunksize = 1 }))
      assert.equal("pool:map: items has keys but no element 1: it must be a list",
        refused(pool.map, pool, identity, { a = 1 }))
      local holed = { 1 }
      holed[5] = 5
      assert.equal("pool:each: items has no element 2, but one at 5: with holes it needs its "
        .. "length as n", refused(pool.each, pool, identity, holed))
      assert.equal("pool:map: items must be a table, or a function that needs no arguments: "
        .. "not what pairs() or ipairs() return", refused(pool.map, pool, identity, pairs {}))
    end)
  end)
end)
