-- Every example runs and prints the right numbers.

local shell = require "support.shell"

local function run(line)
  local process = assert(io.popen(("%s examples/%s 2>&1; echo status $?"):format(shell.command,
    line)))
  local output = process:read "*a"
  process:close()
  return output
end

local function assert_contains(output, text)
  assert(output:find(text, 1, true), ("%q is not in:\n%s"):format(text, output))
end

describe("examples", function()
  it("primes.lua tells primes and counts them below five million", function()
    local output = run "primes.lua"
    for _, n in ipairs { 2, 17, 23, 97, 7919, 1000003 } do
      assert_contains(output, ("%8d is prime"):format(n))
    end
    for _, n in ipairs { 50, 100 } do assert_contains(output, ("%8d is not prime"):format(n)) end
    assert_contains(output, "348513 primes below 5000000 with ")
    assert_contains(output, "348513 primes in one process ")
    assert_contains(output, "status 0\n")
  end)

  it("matrix.lua multiplies small and large matrices", function()
    local output = run "matrix.lua"
    assert_contains(output, "[[1, 2], [3, 4]] * [[5, 6], [7, 8]] = [[19, 22], [43, 50]]\n")
    assert_contains(output, "[[2, 0], [1, 2]] * [[1, 1], [0, 1]] = [[2, 2], [1, 3]]\n")
    assert_contains(output, "[[0, 1], [1, 0]] * [[9, 8], [7, 6]] = [[7, 6], [9, 8]]\n")
    assert_contains(output, "512x512 by rows: ")
    assert_contains(output, "trace 5382616\n") -- of 2.6e8 whole products, by an independent count
    assert_contains(output, "status 0\n")
  end)

  it("async.lua goes on meanwhile, times out, catches, calls back", function()
    local output = run "async.lua"
    assert_contains(output, "17 / 5 =\t3.4\t2\n")
    assert_contains(output, "not yet: timeout\n")
    assert_contains(output, "the long sum is 299999997\n")
    assert_contains(output, "caught:\tfalse\ttask\t cannot divide 1 by zero\n")
    assert_contains(output, "callback: 22 leaves 1\nerror callback: task\n")
    local last = output:find("completed: the sum of 200000000 is 599999998\n", 1, true)
    assert.is_true(last > output:find("completed: the sum of 100 is 297\n", 1, true))
    assert.is_true(last > output:find("completed: the sum of 1000 is 3003\n", 1, true))
    assert_contains(output, "status 0\n")
  end)

  it("powers.lua raises to powers", function()
    local output = run "powers.lua"
    assert_contains(output, "2 ^ 3 = 8\n3 ^ 4 = 81\n4 ^ 5 = 1024\n5 ^ 6 = 15625\n")
    assert_contains(output, "2 ^ 53 = 9007199254740992\n")
    assert_contains(output, "the library and the lambda agree\nstatus 0\n")
  end)

  it("chunks.lua has the same results with chunks of any size", function()
    local output = run "chunks.lua"
    for _, size in ipairs { "adaptive", "1", "20", "400", "10000" } do
      assert.is_truthy(output:match("chunks of " .. size .. " +[%d.]+ +[%d.]+\n"), output)
    end
    assert_contains(output, "the same results every time\nstatus 0\n")
  end)

  it("stream.lua shows progress and leaves an endless loop", function()
    local output = run "stream.lua"
    assert_contains(output, " 25 % measured\n 50 % measured\n 75 % measured\n100 % measured\n")
    assert_contains(output, "the longest below a million starts at 837799: 525 numbers\n")
    assert_contains(output, "perfect: 6, 28, 496, 8128\n")
    assert_contains(output, "asked for no more than 1000 numbers more than it took\nstatus 0\n")
  end)

  it("nested.lua sweeps parameters as a plain loop does", function()
    local output = run "nested.lua"
    -- speed ^ 2 / 9.81 without drag, at 45 degrees
    assert_contains(output, "drag 0.000: 10 m/s 10.2 m at 45 degrees, "
      .. "20 m/s 40.8 m at 45 degrees, 30 m/s 91.7 m at 45 degrees\n")
    assert_contains(output, "drag 0.020: ")
    assert_contains(output, "a plain loop finds the same\nstatus 0\n")
  end)

  it("montecarlo.lua finds the same figure whoever computes it", function()
    local output = run "montecarlo.lua 7"
    local figure = output:match "pi is about (3%.1[34]%d+)\n"
    local _, count = output:gsub("pi is about " .. figure .. "\n", "")
    assert.are.equal(6, count)
    assert_contains(output, "status 0\n")
    assert.is_nil(run("montecarlo.lua 8"):find(figure, 1, true))
  end)

  it("wordcount.lua counts what was written", function()
    local output = run "wordcount.lua"
    assert_contains(output, "600000 words, 7 different\n")
    assert_contains(output, "as many as were written\nstatus 0\n")
  end)

  it("wordcount.lua counts the words of a file", function()
    local path = shell.script "The mill,\nthe tide; THE end"
    assert.are.equal("6 words, 4 different\n       3 the\n       1 end\n       1 mill\n"
      .. "       1 tide\nstatus 0\n", run("wordcount.lua " .. path))
    os.remove(path)
  end)

  describe("images.lua", function()
    local directory, output

    setup(function()
      directory = os.tmpname()
      os.remove(directory)
      output = run("images.lua " .. directory)
    end)

    teardown(function() os.execute("rm -r " .. directory) end)

    --- The bytes of the picture, after its header.
    local function read(name)
      local text = shell.read(("%s/%s.ppm"):format(directory, name))
      assert.are.equal("P6\n480 320\n255\n", text:sub(1, 15))
      assert.are.equal(15 + 480 * 320 * 3, #text)
      return text:sub(16)
    end

    --- How much the colours differ from those of the pixel to the left, in all.
    local function contrast(bytes)
      local total = 0
      for i = 4, #bytes do total = total + math.abs(bytes:byte(i) - bytes:byte(i - 3)) end
      return total
    end

    local function assert_every(name, condition)
      local bytes = read(name)
      for i = 1, #bytes, 3 do assert(condition(bytes:byte(i, i + 2)), name .. " at " .. i) end
    end

    it("filters by bands without a seam", function()
      for _, name in ipairs { "grayscale", "blur", "sharpen", "sepia" } do
        assert_contains(output, ("%s: 480 x 320 in 8 bands, as in one piece: %s/%s.ppm\n"):format(
          name, directory, name))
      end
      assert_contains(output, "status 0\n")
    end)

    it("makes gray what is gray and brown what is brown", function()
      assert_every("grayscale", function(r, g, b) return r == g and g == b end)
      assert_every("sepia", function(r, g, b) return r > g and g > b end)
    end)

    it("takes contrast when it blurs and gives some when it sharpens", function()
      local before = contrast(read "original")
      assert.is_true(contrast(read "blur") < 0.95 * before)
      assert.is_true(contrast(read "sharpen") > 1.05 * before)
    end)

    it("takes a picture from a file", function()
      local made = directory .. "/small"
      local path = shell.script "P6\n# signed\n2 1\n255\n\1\2\3\200\100\0"
      output = run(("images.lua %s %s"):format(made, path))
      os.remove(path)
      assert_contains(output, "sharpen: 2 x 1 in 1 bands, as in one piece: ")
      assert.are.equal("P6\n2 1\n255\n\1\2\3\200\100\0", shell.read(made .. "/original.ppm"))
      local gray = shell.read(made .. "/grayscale.ppm")
      assert.are.equal("P6\n2 1\n255\n\2\2\2\119\119\119", gray) -- 30 % red, 59 % green, 11 % blue
    end)
  end)

  it("fetch.lua fetches pages, misses some, gives up on some", function()
    local output = run "fetch.lua"
    assert_contains(output, "/page/1      200\n/never       timeout\n/missing/12  404\n")
    assert_contains(output, "60 pages: 53 found, 5 missing, 2 timed out\n")
    assert.is_true(tonumber(output:match "one at a time: ([%d.]+) times") > 1.5, output)
    assert_contains(output, "status 0\n")
  end)

  it("eventloop.lua works while a timer ticks", function()
    local output = run "eventloop.lua"
    assert_contains(output, "5 of 20 replies\n10 of 20 replies\n15 of 20 replies\n")
    assert_contains(output, "78498 primes below a million; the timer ticked meanwhile\nstatus 0\n")
  end)

  it("pipeline.lua passes numbers through queues", function()
    local output = run "pipeline.lua"
    assert_contains(output, "2262 primes up to 20000\n") -- as an independent count has it
    assert_contains(output, "5081 numbers with 2 prime factors\n")
    assert_contains(output, "5118 numbers with 3 prime factors\n")
    assert_contains(output, "3560 numbers with 4 prime factors\n")
    assert_contains(output, "16384 is 2 * 2 * 2 *")
    assert_contains(output, "status 0\n")
  end)

  it("heat.lua computes the same together as alone", function()
    local output = run "heat.lua"
    assert_contains(output, "row   2:  93.499\nrow   5:  74.421\nrow  10:  46.283\n")
    assert_contains(output, "row  20:  12.106\nrow  50:   0.006\n")
    assert_contains(output, "0 of 40000 points differ from what one process computes\n")
    assert_contains(output, "status 0\n")
  end)

  it("matrix_shared.lua multiplies in place, in Lua and by BLAS if it is there", function()
    local output = run "matrix_shared.lua 200"
    assert_contains(output, "200 x 200: 100 of 100 elements are right\n")
    assert.is_truthy(output:find("BLAS: 0 of 40000 elements differ\n", 1, true)
      or output:find("BLAS is not installed\n", 1, true), output)
    assert_contains(output, "status 0\n")
  end)
end)
