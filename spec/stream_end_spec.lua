-- Streams that are left early, and pools that end under them: nothing hangs, nothing is left.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local tidemill = require "tidemill"

local numbers = common.numbers
local assert_alive = common.assert_alive

local function identity(x) return x end
local function spin() while true do end end

local function counter(count)
  local n = 0
  return function()
    if n == count then return nil end
    n = n + 1
    return n
  end
end

local function each_method(act)
  for _, method in ipairs { "imap", "imap_unordered" } do act(method) end
end

local function drop()
  collectgarbage()
  collectgarbage()
end

--- Inputs with and without an end that is known.
local function inputs(count)
  return { numbers(count), tidemill.range(1, count), counter(count), counter() }
end

describe("a stream that is closed", function()
  leaks.watch(after_each, assert)

  it("yields nothing more, and may be closed again", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, items in ipairs(inputs(1000)) do
          local stream = pool[method](pool, identity, items, 3)
          for _ = 1, 5 do stream:next() end
          for _ = 1, 3 do
            stream:close()
            assert.is_nil(stream:next())
            for _ in stream do error "it was closed" end
          end
        end
      end)
      assert_alive(pool)
    end)
  end)

  it("before its first result yields none", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, items in ipairs(inputs(10)) do
          local stream = pool[method](pool, identity, items)
          stream:close()
          assert.is_nil(stream:next())
        end
      end)
    end)
  end)

  it("after its end stays ended", function()
    tidemill.with(2, function(pool)
      local stream = pool:imap(identity, { 1 })
      assert.equal(1, (stream:next()))
      assert.is_nil(stream:next())
      stream:close()
      assert.is_nil(stream:next())
    end)
  end)

  it("stops what runs of it, and the workers are there for others", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local log = files.log()
        local stream = pool[method](pool, function(x)
          files.note(log, x)
          spin()
        end, counter(), { chunksize = 1, buffer = 10 })
        assert.is_false((pcall(stream.next, stream, 0)))
        files.await(log, 2)
        stream:close()
        assert_alive(pool)
        assert.equal(2, #files.lines(log))
        os.remove(log)
      end)
    end)
  end)

  it("forgets what its iterator raised", function()
    tidemill.with(1, function(pool)
      local n = 0
      local stream = pool:imap(identity, function()
        n = n + 1
        if n > 20 then error "source" end
        return n
      end, { buffer = 100, chunksize = 1 })
      assert.equal(1, (stream:next()))
      stream:close()
      assert.is_nil(stream:next())
    end)
  end)

  it("may be so in its loop, and from another's", function()
    tidemill.with(2, function(pool)
      local other = pool:imap(identity, counter(), 2)
      assert.equal(1, (other:next()))
      local seen = 0
      local stream = pool:imap(identity, counter(), 2)
      for i in stream do
        seen = i
        if i == 7 then other:close() end
        if i == 30 then stream:close() end
      end
      assert.equal(30, seen)
      assert.is_nil(other:next())
      assert_alive(pool)
    end)
  end)
end)

describe("a stream that is dropped", function()
  leaks.watch(after_each, assert)

  it("early is not run to its end", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, items in ipairs { numbers(4000), tidemill.range(1, 4000) } do
          local log = files.log()
          pool[method](pool, function(x) files.note(log, x) return x end, items,
            { chunksize = 1, buffer = 20 }):next()
          drop()
          assert_alive(pool)
          assert.is_true(#files.lines(log) <= 21)
          os.remove(log)
        end
      end)
    end)
  end)

  it("stops what runs of it", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local function begin()
          local stream = pool[method](pool, spin, counter(), { chunksize = 1, buffer = 6 })
          assert.is_false((pcall(stream.next, stream, 0.01)))
        end
        begin()
        drop()
        assert_alive(pool)
      end)
    end)
  end)

  it("does not hang the end of its pool, many at once", function()
    for _ = 1, 5 do
      tidemill.with(2, function(pool)
        for k = 1, 20 do
          local stream = pool:imap(identity, inputs(1000)[k % 4 + 1], k)
          for _ = 1, k do stream:next() end
        end
        drop()
      end)
    end
  end)

  it("with its pool leaves nothing", function()
    for k = 1, 10 do
      local stream = tidemill.pool(2):imap(k % 2 == 0 and spin or identity, inputs(1000)[k % 4 + 1],
        { chunksize = 1, buffer = 5 })
      pcall(stream.next, stream, 0)
    end
  end)

  it("keeps its pool alive until then", function()
    local stream = tidemill.pool(1):imap(identity, counter(3000), 10)
    local count = 0
    for _ in stream do
      count = count + 1
      if count % 1000 == 1 then drop() end
    end
    assert.equal(3000, count)
  end)
end)

describe("the end of a pool", function()
  leaks.watch(after_each, assert)

  it("by close lets its streams go on", function()
    each_method(function(method)
      for _, items in ipairs { numbers(500), tidemill.range(1, 500), counter(500) } do
        local pool = tidemill.pool(2)
        local stream = pool[method](pool, identity, items, { chunksize = 3, buffer = 10 })
        assert.is_number((stream:next()))
        pool:close()
        local count = 1
        for i, value in stream do
          count = count + 1
          assert.equal(i, value)
        end
        assert.equal(500, count)
        assert.is_true(pool:join(20))
      end
    end)
  end)

  it("by join ends streams that were begun and left", function()
    each_method(function(method)
      for _, items in ipairs(inputs(5000)) do
        local pool = tidemill.pool(2)
        local stream = pool[method](pool, identity, items, { chunksize = 2, buffer = 10 })
        for _ = 1, 3 do assert.is_number((stream:next())) end
        pool:close()
        assert.is_true(pool:join(20))
        local ok, err
        for _ = 1, 5000 do -- what had come in is still there
          ok, err = pcall(stream.next, stream)
          if not ok or not err then break end
        end
        assert.is_false(ok)
        assert.equal("closed", err.kind)
        assert.is_nil(stream:next())
      end
    end)
  end)

  it("by join lets streams not begun finish", function()
    each_method(function(method)
      for _, items in ipairs { numbers(3000), tidemill.range(1, 3000) } do
        local log = files.log()
        local pool = tidemill.pool(2)
        local stream = pool[method](pool, function(x)
          if x % 100 == 0 then files.note(log, x) end
          return x
        end, items, { chunksize = 7, buffer = 20 })
        pool:close()
        assert.is_true(pool:join(30))
        assert.equal(30, #files.lines(log))
        local count = 0
        for i, value in stream do
          count = count + 1
          assert.equal(i, value)
        end
        assert.equal(3000, count)
        os.remove(log)
      end
    end)
  end)

  it("by join does not wait for an endless input not begun", function()
    each_method(function(method)
      local pool = tidemill.pool(2)
      local stream = pool[method](pool, identity, counter(), 2)
      pool:close()
      assert.is_true(pool:join(20))
      stream:close()
    end)
  end)

  it("by join comes in whatever state the collector is", function()
    local cycle = 0
    drop()
    repeat cycle = cycle + 1 until collectgarbage("step", 0)
    for part = 0, 50 do
      local pool = tidemill.pool(1)
      drop()
      collectgarbage "stop"
      pool:imap(identity, tidemill.range(1, 1000), { chunksize = 2, buffer = 4 }):next()
      for _ = 1, cycle * part / 50 do
        if collectgarbage("step", 0) then break end
      end
      collectgarbage "stop" -- a step starts it again
      pool:close()
      local ended = pool:join(10)
      collectgarbage "restart"
      pool:terminate()
      assert.is_true(ended, ("%d/50 of a cycle later"):format(part))
    end
  end)

  it("by with ends streams left in its function", function()
    each_method(function(method)
      for _, items in ipairs(inputs(5000)) do
        local kept
        tidemill.with(2, function(pool)
          kept = pool[method](pool, identity, items, { chunksize = 2, buffer = 30 })
          for i in kept do
            if i > 10 then break end
          end
        end)
        kept:close()
        assert.is_nil(kept:next())
      end
    end)
  end)

  it("by terminate fails its streams, at once", function()
    each_method(function(method)
      for _, items in ipairs(inputs(5000)) do
        for _, f in ipairs { identity, spin } do
          local pool = tidemill.pool(2)
          local stream = pool[method](pool, f, items, { chunksize = 1, buffer = 10 })
          if f == identity then assert.is_number((stream:next())) end
          pool:terminate()
          local ok, err
          for _ = 1, 20 do -- what had come in may still be there
            ok, err = pcall(stream.next, stream, 20)
            if not ok then break end
          end
          assert.is_false(ok)
          assert.equal("terminated", err.kind)
          assert.is_true(pool:join(20))
        end
      end
    end)
  end)

  it("may come in a loop over a stream", function()
    for _, items in ipairs(inputs(5000)) do
      local pool = tidemill.pool(2)
      local ok, err = pcall(function()
        for i in pool:imap(identity, items, { chunksize = 1, buffer = 5 }) do
          if i == 10 then pool:terminate() end
        end
      end)
      assert.is_false(ok)
      assert.equal("terminated", err.kind)
    end
  end)

  it("may come in the generator", function()
    for _, ending in ipairs { "close", "terminate" } do
      local pool = tidemill.pool(2)
      local n, last = 0, 0
      local function generate()
        n = n + 1
        if n == 50 then pool[ending](pool) end
        if n <= 100 then return n end
      end
      local ok, err = pcall(function()
        for i in pool:imap(identity, generate, { chunksize = 1, buffer = 5 }) do last = i end
      end)
      if ending == "close" then
        assert.is_true(ok, tostring(err))
        assert.equal(100, last)
      else
        assert.is_false(ok)
        assert.equal("terminated", err.kind)
      end
      pool:close()
      assert.is_true(pool:join(20))
    end
  end)

  it("refuses new streams", function()
    for _, ending in ipairs { "close", "terminate" } do
      local pool = tidemill.pool(1)
      pool[ending](pool)
      for _, method in ipairs { "imap", "imap_unordered", "istarmap", "istarmap_unordered" } do
        local ok, err = pcall(pool[method], pool, identity, {})
        assert.is_false(ok)
        assert.equal("closed", err.kind)
      end
      assert.is_true(pool:join(20))
    end
  end)
end)
