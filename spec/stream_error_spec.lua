-- Failures in a stream: each at its place, and everything before and after it delivered.

local common = require "support.common"
local files = require "support.files"
local leaks = require "support.leaks"
local processes = require "support.processes"
local tidemill = require "tidemill"

local numbers = common.numbers
local assert_alive = common.assert_alive

local function identity(x) return x end

local function each_method(act)
  for _, method in ipairs { "imap", "imap_unordered" } do act(method) end
end

--- Iterate to the end over all that is raised: what came, by place; errors too.
local function take_all(stream)
  local came, count = {}, 0
  while true do
    local ok, place, value = pcall(stream.next, stream)
    if ok and not place then return came, count end
    local error_object = not ok and place or nil
    if error_object then
      assert.is_true(tidemill.is_error(error_object), tostring(error_object))
      place, value = error_object.index, error_object
    end
    assert.is_nil(came[place])
    came[place] = value
    count = count + 1
  end
end

describe("an error in a stream", function()
  leaks.watch(after_each, assert)

  it("is raised at its place, and the iteration goes on after it", function()
    tidemill.with(2, function(pool)
      for _, chunk in ipairs { 1, 4, 100 } do
        local stream = pool:imap(function(x)
          if x % 3 == 0 then error({ code = x }) end
          return x
        end, numbers(50), chunk)
        for i = 1, 50 do
          local ok, place, value = pcall(stream.next, stream)
          if i % 3 == 0 then
            assert.is_false(ok)
            assert.equal("task", place.kind)
            assert.is_truthy(place.traceback:find("stream_error_spec.lua:%d+: in function"))
            assert.equal(i, place.index)
            assert.equal(i, place.item)
            assert.same({ code = i }, place.value)
          else
            assert.same({ true, i, i }, { ok, place, value })
          end
        end
        assert.is_nil(stream:next())
      end
    end)
  end)

  it("comes out of a loop, and another loop goes on", function()
    tidemill.with(2, function(pool)
      local stream = pool:imap(function(x)
        if x == 10 or x == 11 then error "no" end
        return x
      end, numbers(20), 4)
      local places, failed = {}, {}
      for _ = 1, 3 do
        local ok, err = pcall(function()
          for i in stream do places[#places + 1] = i end
        end)
        if not ok then failed[#failed + 1] = err.index end
      end
      assert.same({ 10, 11 }, failed)
      assert.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20 }, places)
    end)
  end)

  it("without order is raised once for its item", function()
    tidemill.with(3, function(pool)
      for _, chunk in ipairs { 1, 7, 100 } do
        local came, count = take_all(pool:imap_unordered(function(x)
          if x % 3 == 0 then error(x, 0) end
          return x
        end, numbers(200), chunk))
        assert.equal(200, count)
        for i = 1, 200 do
          if i % 3 == 0 then assert.equal(i, came[i].value) else assert.equal(i, came[i]) end
        end
      end
    end)
  end)

  it("is a value if errors are collected", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, chunk in ipairs { 1, 4, 100 } do
          local seen = 0
          for i, value, err in pool[method](pool, function(x)
            if x % 3 == 0 then error(x, 0) end
            if x % 3 == 1 then return x end
          end, numbers(100), { chunksize = chunk, errors = "collect" }) do
            seen = seen + 1
            assert.equal(i % 3 == 1 and i or nil, value)
            if i % 3 == 0 then
              assert.equal("task", err.kind)
              assert.equal(i, err.index)
              assert.equal(i, err.value)
            else
              assert.is_nil(err)
            end
          end
          assert.equal(100, seen)
        end
      end)
    end)
  end)

  it("may be of every item", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local came, count = take_all(pool[method](pool, function(x) error(x, 0) end,
          numbers(300), 7))
        assert.equal(300, count)
        for i = 1, 300 do assert.equal(i, came[i].value) end
      end)
      assert_alive(pool)
    end)
  end)

  it("is a worker's death at the place of the item in its hand", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, chunk in ipairs { 1, 5, 100 } do
          local came, count = take_all(pool[method](pool, function(x)
            if x % 20 == 10 then os.exit(3) end
            return { x }
          end, numbers(60), chunk))
          assert.equal(60, count)
          for i = 1, 60 do
            if i % 20 == 10 then
              assert.equal("worker", came[i].kind)
              assert.equal(3, came[i].exitcode)
              assert.equal(i, came[i].item)
            else
              assert.same({ i }, came[i])
            end
          end
        end
      end)
    end)
  end)

  it("is a result that cannot travel, at its place", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local pids = {}
        for _, pid in ipairs(pool:workers()) do pids[pid] = true end
        local came = take_all(pool[method](pool, function(x)
          if x % 10 == 5 then return { a = { io.stdout } } end
          return x
        end, numbers(50), 4))
        for i = 1, 50 do
          if i % 10 == 5 then assert.equal("encode", came[i].kind)
          else assert.equal(i, came[i]) end
        end
        for _, pid in ipairs(pool:workers()) do assert.is_true(pids[pid]) end
      end)
    end)
  end)

  it("is an item that cannot travel, at its place", function()
    local thread = coroutine.create(identity)
    tidemill.with(2, function(pool)
      each_method(function(method)
        for _, chunk in ipairs { 1, 3, 100 } do
          local items = numbers(20)
          items[7], items[8] = { thread }, thread
          for _, lazy in ipairs { false, true } do
            local n = 0
            local function generate()
              n = n + 1
              return items[n]
            end
            local came, count = take_all(pool[method](pool, identity, lazy and generate or items,
              chunk))
            assert.equal(20, count)
            for i = 1, 20 do
              if i == 7 or i == 8 then assert.equal("encode", came[i].kind)
              else assert.equal(i, came[i]) end
            end
          end
        end
      end)
    end)
  end)

  it("is a function that cannot travel, before any item", function()
    local thread = coroutine.create(identity)
    tidemill.with(1, function(pool)
      each_method(function(method)
        local ok, err = pcall(function()
          local stream = pool[method](pool, function() return thread end, { 1, 2 })
          stream:next()
        end)
        assert.is_false(ok)
        assert.equal("encode", err.kind)
      end)
      assert_alive(pool)
    end)
  end)

  it("is an item of a starred one that is no table", function()
    tidemill.with(1, function(pool)
      local came = take_all(pool:istarmap("a, b -> a + b", { { 1, 2 }, 3, { 4, 5 } }, 2))
      assert.equal(3, came[1])
      assert.equal("encode", came[2].kind)
      assert.equal(9, came[3])
    end)
  end)

  it("of a megabyte is no hindrance", function()
    tidemill.with(2, function(pool)
      each_method(function(method)
        local came = take_all(pool[method](pool, function(x) error(("e"):rep(2 ^ 20) .. x, 0) end,
          numbers(10), 3))
        for i = 1, 10 do assert.equal(("e"):rep(2 ^ 20) .. i, came[i].message) end
      end)
    end)
  end)

  it("breaks every stream when the supervisor dies, at once", function()
    local pool = tidemill.pool(2)
    local streams = {}
    each_method(function(method)
      streams[#streams + 1] = pool[method](pool, function() while true do end end, numbers(3), 1)
    end)
    processes.kill(processes.children(processes.self())[1], processes.SIGKILL)
    for _, stream in ipairs(streams) do
      local ok, err = pcall(stream.next, stream, 20)
      assert.is_false(ok)
      assert.equal("broken", err.kind)
    end
    pool:terminate()
    tidemill.with(1, assert_alive) -- with a new supervisor, before descriptors are counted
  end)
end)

describe("an iterator that raises", function()
  leaks.watch(after_each, assert)

  local function failing(last, value)
    local n = 0
    return function()
      n = n + 1
      if n > last then error(value, 0) end
      return n
    end
  end

  it("does so after all items before it, whatever the chunks", function()
    tidemill.with(2, function(pool)
      for _, workers_own in ipairs { "no more", { reason = "table" } } do
        for _, last in ipairs { 0, 1, 3, 50, 500 } do
          for _, chunk in ipairs { false, 1, 2, 3, 7, 1000 } do
            each_method(function(method)
              local stream = pool[method](pool, identity, failing(last, workers_own),
                chunk or nil)
              local seen = {}
              for _ = 1, last do
                local place, value = stream:next()
                assert.equal(place, value)
                assert.is_nil(seen[place])
                seen[place] = true
              end
              local ok, err = pcall(stream.next, stream)
              assert.is_false(ok)
              assert.is_true(rawequal(workers_own, err))
              assert.is_nil(stream:next())
              assert.is_nil(stream:next())
            end)
          end
        end
      end
      assert_alive(pool)
    end)
  end)

  it("keeps its error apart from those of items", function()
    tidemill.with(2, function(pool)
      for _, errors in ipairs { "raise", "collect" } do
        local stream = pool:imap(function(x)
          if x == 2 then error "item" end
          return x
        end, failing(3, "source"), { errors = errors, chunksize = 2 })
        assert.same({ 1, 1 }, { stream:next() })
        if errors == "raise" then
          local ok, err = pcall(stream.next, stream)
          assert.is_false(ok)
          assert.equal(2, err.index)
        else
          assert.equal(2, select(3, stream:next()).index)
        end
        assert.same({ 3, 3 }, { stream:next() })
        local ok, err = pcall(stream.next, stream)
        assert.is_false(ok)
        assert.equal("source", err)
        assert.is_nil(stream:next())
      end
    end)
  end)

  it("waits for results that are slow", function()
    tidemill.with(2, function(pool)
      local gate = files.gate()
      local stream = pool:imap(function(x)
        files.pass(gate)
        return x
      end, failing(3, "source"), 1)
      local ok, err = pcall(stream.next, stream, 0.05)
      assert.is_false(ok)
      assert.equal("timeout", err.kind)
      files.open(gate)
      for i = 1, 3 do assert.equal(i, (stream:next())) end
      assert.equal("source", select(2, pcall(stream.next, stream)))
    end)
  end)

  it("ends a map with its own error, and an asynchronous one before it begins", function()
    tidemill.with(2, function(pool)
      for _, last in ipairs { 0, 3, 700 } do
        for _, method in ipairs { "map", "map_async", "filter", "each" } do
          local ok, err = pcall(pool[method], pool, identity, failing(last, "source"), 3)
          assert.is_false(ok)
          assert.equal("source", err)
          assert_alive(pool)
        end
        local ok, err = pcall(pool.mapreduce, pool, identity, math.max, failing(last, "source"))
        assert.is_false(ok)
        assert.equal("source", err)
      end
    end)
  end)

  it("may yield nothing across pcall, nor go back into its stream", function()
    tidemill.with(2, function(pool)
      local stream
      stream = pool:imap(identity, function() return (stream:next()) end)
      local ok, err = pcall(stream.next, stream, 5) -- an error or a timeout, but never a hang
      assert.is_false(ok)
      assert.is_truthy(err)
      stream:close()
      assert_alive(pool)
    end)
  end)
end)
