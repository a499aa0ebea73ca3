-- Every example runs and prints the right numbers.

local command = assert(os.getenv "TIDEMILL_COMMAND", "TIDEMILL_COMMAND must name the command")

local function run(line)
  local process = assert(io.popen(("%s examples/%s 2>&1; echo status $?"):format(command, line)))
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

  it("async.lua goes on meanwhile, times out, catches", function()
    local output = run "async.lua"
    assert_contains(output, "17 / 5 =\t3.4\t2\n")
    assert_contains(output, "not yet: timeout\n")
    assert_contains(output, "the long sum is 900000003\n")
    assert_contains(output, "caught:\tfalse\ttask\t cannot divide 1 by zero\n")
    assert_contains(output, "status 0\n")
  end)
end)
