-- `tidemill --trace FILE`: what pools did when, as a file that viewers of traces read.

local json = require "support.json"
local processes = require "support.processes"
local shell = require "support.shell"

describe("a trace", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  --- The events in the file, which is JSON.
  local function events()
    return (assert(json.decode(shell.read(path)), "this is not JSON"))
  end

  local function of_kind(letter, name)
    local found = {}
    for _, event in ipairs(events()) do
      if event.ph == letter and (not name or event.name:find(name, 1, true)) then
        found[#found + 1] = event
      end
    end
    return found
  end

  --- Run a script with a trace. `pool` has two workers.
  local function trace(text, expected)
    local out, err, status = shell.run("TIDEMILL --trace " .. path .. " SCRIPT",
      [[local tidemill = require "tidemill" local pool = tidemill.pool(2) ]] .. text)
    assert.equal(expected or 0, status, err)
    return out, err
  end

  it("has a row for each worker, under its pool, and one for the script", function()
    trace [[
      pool:map(math.abs, { -1, -2 })
      tidemill.pool { processes = 1, name = "a \"quoted\" \\ name\n" }:map(math.abs, { 1 })]]
    local groups, rows = {}, {}
    for _, event in ipairs(events()) do
      if event.name == "process_name" then groups[event.pid] = event.args.name end
      if event.name == "thread_name" then rows[event.pid .. "." .. event.tid] = event.args.name end
      if event.ph == "X" then
        assert.is_string(groups[event.pid])
        assert.is_string(rows[event.pid .. "." .. event.tid])
      end
    end
    assert.is_truthy(groups[1]:find("/", 1, true)) -- the script
    assert.same({ "pool 1", 'a "quoted" \\ name? 2' }, { groups[2], groups[3] })
  end)

  it("has every item in one span, in the row of its worker", function()
    local out = trace [[
      local function pid(i) return tidemill.worker().id end
      print(table.concat(pool:map(pid, tidemill.range(1, 40), 3), " "))]]
    local worker = {}
    for id in out:gmatch "%d+" do worker[#worker + 1] = tonumber(id) end
    local seen = 0
    for _, span in ipairs(of_kind("X", ":1")) do
      assert.equal(2, span.pid)
      for i = span.args.first, span.args.first + span.args.items - 1 do
        assert.equal(worker[i], span.tid)
        seen = seen + 1
      end
    end
    assert.equal(40, seen)
  end)

  it("says how long a chunk took, and when, and how long the script waited", function()
    local out = trace [[
      local before = tidemill.clock()
      local function spin() local t = os.clock() while os.clock() - t < 0.05 do end end
      pool:map(spin, { 1, 2, 3 }, 1)
      print(tidemill.clock() - before)]]
    local elapsed_us, waited_us, last = tonumber(out) * 1e6, 0, {}
    local spans = of_kind("X", ":2") -- in the order in which they came back
    table.sort(spans, function(a, b) return a.ts < b.ts end)
    assert.equal(3, #spans)
    for _, span in ipairs(spans) do
      assert.is_true(span.dur >= 0.049e6 and span.dur <= elapsed_us)
      -- to the nanosecond, as far as sums of doubles are
      assert.is_true(span.ts > (last[span.tid] or 0) - 1e-3, "a worker did two things at once")
      last[span.tid] = span.ts + span.dur
    end
    for _, span in ipairs(of_kind("X", "wait")) do waited_us = waited_us + span.dur end
    assert.is_true(waited_us >= 0.05e6 and waited_us <= elapsed_us)
    assert.is_true(#of_kind("X", "encode") > 0)
    assert.is_true(#of_kind("X", "take in") > 0)
  end)

  it("marks the deaths of workers, and of which item", function()
    trace [[
      local die = function(i) if i == 5 then os.exit(3) end return i end
      pool:map(die, tidemill.range(1, 9), { chunksize = 3, errors = "collect" })
      pool:map(function(i) while i == 2 do end end, { 1, 2 },
        { chunksize = 1, timeout = 0.05, errors = "collect" })]]
    local died, late = of_kind("i", "died"), of_kind("i", "timed out")
    assert.equal(1, #died)
    assert.equal(5, died[1].args.item)
    assert.equal(3, died[1].args.exitcode)
    assert.equal(1, #late)
    assert.equal(2, late[1].args.item)
    assert.equal(processes.SIGKILL, late[1].args.signal)
  end)

  it("is whole when the script raises, exits, or is interrupted", function()
    local work = "pool:map(math.abs, tidemill.range(1, 100), 10) "
    local names = 10
    for ending, status in pairs { ["error 'boom'"] = 1, ["os.exit(7)"] = 7 } do
      trace(work .. ending, status)
      assert.equal(names, #of_kind("X", "[C]"))
    end
    for _, ending in ipairs { "pool:apply(function() while true do end end)",
                              "local n = 0 while true do n = n + 1 end" } do
      local run = shell.start(work .. "mark() " .. ending, shell.command .. " --trace " .. path)
      processes.kill(-run.pid, processes.SIGINT)
      assert.equal(130, select(3, shell.finish(run)))
      assert.equal(names, #of_kind("X", "[C]"))
    end
  end)

  it("is JSON between any two writes, also when the script is killed", function()
    local run = shell.start([[
      for _ = 1, 30 do pool:map(math.abs, tidemill.range(1, 20), 1) end
      mark()
      for _ = 1, 30 do
        pool:map(math.abs, tidemill.range(1, 20), 1)
        ffi.C.poll(nil, 0, 10)
      end
      while true do ffi.C.poll(nil, 0, 1000) end]], shell.command .. " --trace " .. path)
    for _ = 1, 12 do -- not in the middle of a write
      processes.kill(run.pid, processes.SIGSTOP)
      assert.is_true(processes.eventually(5, function()
        return shell.read(("/proc/%d/status"):format(run.pid)):find("State:%s+T") ~= nil
      end))
      assert.is_true(#events() > 100)
      processes.kill(run.pid, processes.SIGCONT)
    end
    processes.kill(run.pid, processes.SIGKILL)
    shell.finish(run)
    assert.is_true(#events() > 100)
  end)

  it("can go into a pipe", function()
    local out = shell.run("TIDEMILL --trace /dev/stdout SCRIPT | cat",
      [[require "tidemill".pool(2):map(math.abs, { 1, 2, 3 }, 1)]])
    assert.is_true(#assert(json.decode(out)) > 3)
  end)

  it("is the script's alone: not of pools in its workers, nor of other programs", function()
    trace [[
      local inherited = tidemill.pool { processes = 1, inherit = true, name = "copies" }
      for _, p in ipairs { pool, inherited } do
        p:apply(function()
          require "tidemill".with({ processes = 1, name = "inner" }, function(inner)
            inner:map(math.abs, { 1, 2, 3 }, 1)
          end)
        end)
      end]]
    local names = {}
    for _, event in ipairs(of_kind("M", "process_name")) do names[#names + 1] = event.args.name end
    assert.same({ "pool 1", "copies 2" }, { names[2], names[3] })
    assert.equal(3, #names)
  end)

  it("that cannot be written is an error, at once or at the end", function()
    local function refused(line, expected, output, problem)
      local out, err, status = shell.run("TIDEMILL --trace " .. line, "print 'ran'")
      assert.equal(output, out)
      assert.is_truthy(err:find(problem, 1, true), err)
      assert.equal(expected, status)
    end
    refused("/no/such/file SCRIPT", 1, "", "cannot open '/no/such/file': No such file")
    refused("/dev/full SCRIPT", 1, "", "No space left on device")
    refused("", 2, "", "an argument is missing for --trace")
  end)
end)
