# The tests, by label: unit, embed, spec, chaos, lint, layers, model, valgrind; race,
# where it is built for that; fuzz, see fuzz.cmake. Some run side by side; what takes
# long begins first, by its COST in seconds.

find_program(TIDEMILL_LUAJIT luajit)
find_program(TIDEMILL_BUSTED busted)

# Tests and pools survive their child processes, so a report of a sanitizer in
# one of those has to be looked for.
set(reports "ERROR: AddressSanitizer" "\\.[ch]:[0-9:]+ runtime error")

# ---- race: a host, workers and a supervisor that are threads ----

# The detector sees one process, so only what threads can play: the two lowest rooms.
if(TIDEMILL_TSAN)
  set(low_rooms ${TIDEMILL_SOURCES})
  list(FILTER low_rooms INCLUDE REGEX "^src/(base|shm)/")
  set(supp ${CMAKE_SOURCE_DIR}/spec/unit/tsan.supp)
  foreach(name IN ITEMS race_test board_test)
    add_executable(tsan_${name} spec/unit/${name}.c ${low_rooms})
    target_link_libraries(tsan_${name} PRIVATE tidemill_flags)
    add_test(NAME tsan_${name} COMMAND tsan_${name} 1 10)
    set_tests_properties(tsan_${name} PROPERTIES
        LABELS race
        TIMEOUT 300
        ENVIRONMENT "TSAN_OPTIONS=suppressions=${supp}:halt_on_error=1")
  endforeach()
  return()
endif()

# ---- unit: C tests of the rooms below Lua ----

foreach(name IN LISTS TIDEMILL_UNIT_TESTS)
  add_executable(${name}
      spec/unit/${name}.c $<TARGET_OBJECTS:tidemill_objects>)
  target_link_libraries(${name} PRIVATE tidemill_flags PkgConfig::LUAJIT)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY unit)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES
      LABELS unit
      TIMEOUT 120
      FAIL_REGULAR_EXPRESSION "${reports}")
endforeach()

# ---- embed: C programs that see nothing but the library ----

# They have to survive what the limits on memory do to them, and die of their
# signals, not of a report.
set(embed_environment
    "ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_abort=0:quarantine_size_mb=1"
    $<$<BOOL:${TIDEMILL_SANITIZE}>:SPEC_NO_LIMITS=1>)

add_library(embed_library MODULE spec/embed/library.c)
set_target_properties(embed_library PROPERTIES
    OUTPUT_NAME library PREFIX "" LIBRARY_OUTPUT_DIRECTORY embed)
target_link_libraries(embed_library PRIVATE
    tidemill::tidemill PkgConfig::LUAJIT tidemill_flags)

foreach(name IN LISTS TIDEMILL_EMBED_TESTS)
  add_executable(embed_${name} spec/embed/${name}.c)
  target_link_libraries(embed_${name} PRIVATE
      tidemill_flags tidemill::tidemill PkgConfig::LUAJIT)
  set_target_properties(embed_${name} PROPERTIES
      OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY embed)
  set(arguments "")
  if(name STREQUAL "plugin")
    set_property(TARGET embed_plugin PROPERTY LINK_LIBRARIES
        tidemill_flags ${CMAKE_DL_LIBS})
    target_include_directories(embed_plugin PRIVATE src)
    set(arguments $<TARGET_FILE:tidemill_library>)
  elseif(name STREQUAL "hosts")
    set(arguments
        $<TARGET_FILE:embed_library> $<TARGET_FILE:tidemill_command>)
  endif()
  add_test(NAME embed_${name} COMMAND embed_${name} ${arguments})
  set_tests_properties(embed_${name} PROPERTIES
      LABELS embed
      TIMEOUT 120
      ENVIRONMENT "${embed_environment}"
      FAIL_REGULAR_EXPRESSION "${reports}")
endforeach()
set_property(TEST embed_ten PROPERTY PASS_REGULAR_EXPRESSION "^1 4 9 16\n$")

# ---- spec: what Lua programs see, through the stock luajit ----

set(environment
    "LUA_CPATH=${CMAKE_BINARY_DIR}/?.so\;\;"
    "TIDEMILL_COMMAND=${CMAKE_BINARY_DIR}/tidemill"
    "TIDEMILL_BUILD=${CMAKE_BINARY_DIR}")

# A sanitized module in a program that is not: the runtime has to come first.
# LuaJIT's own allocator makes leak reports noise, and a job that crashes must
# die of its signal, as specs expect, rather than of a report.
if(TIDEMILL_SANITIZE)
  execute_process(
      COMMAND ${CMAKE_C_COMPILER} -print-file-name=libasan.so
      OUTPUT_VARIABLE libasan OUTPUT_STRIP_TRAILING_WHITESPACE)
  list(APPEND environment
      "LD_PRELOAD=${libasan}"
      "ASAN_OPTIONS=detect_leaks=0:handle_segv=0:handle_sigbus=0:quarantine_size_mb=1")
endif()

# A test of files under spec/.
function(add_spec name)
  list(TRANSFORM ARGN PREPEND spec/)
  add_test(NAME ${name}
      COMMAND ${TIDEMILL_LUAJIT} ${TIDEMILL_BUSTED} ${ARGN}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES
      LABELS spec
      TIMEOUT 400
      ENVIRONMENT "${environment}"
      FAIL_REGULAR_EXPRESSION "${reports}")
endfunction()

# A test a file: two run side by side, and a failure is found by its name.
file(GLOB_RECURSE specs
    RELATIVE ${CMAKE_SOURCE_DIR}/spec CONFIGURE_DEPENDS spec/*_spec.lua)
foreach(spec IN LISTS specs)
  string(REPLACE "_spec.lua" "" name spec/${spec})
  add_spec(${name} ${spec})
endforeach()
# The codec once more, as it is where it does not know the layout of tables.
add_spec(spec_api travel calls_spec.lua)
set_property(TEST spec_api APPEND PROPERTY ENVIRONMENT "TIDEMILL_CODEC=api")

# ---- chaos: real jobs under attack ----

# One seed that is always the same, and one that never is.
add_test(NAME chaos
    COMMAND ${TIDEMILL_LUAJIT} scripts/chaos --seed 1 --seconds 30
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
add_test(NAME chaos_anew
    COMMAND ${TIDEMILL_LUAJIT} scripts/chaos --seconds 30
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(chaos chaos_anew PROPERTIES
    LABELS chaos
    TIMEOUT 300
    COST 30
    ENVIRONMENT "${environment}"
    FAIL_REGULAR_EXPRESSION "${reports}")

# ---- lint, layers: the text of the sources ----

add_test(NAME lint
    COMMAND scripts/lint ${CMAKE_BINARY_DIR}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
add_test(NAME layers
    COMMAND scripts/layers
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(lint PROPERTIES LABELS lint TIMEOUT 600 COST 120)
set_tests_properties(layers PROPERTIES LABELS layers)

# ---- model: the protocols as spin sees them, sound and broken ----

find_program(TIDEMILL_SPIN spin)
if(TIDEMILL_SPIN)
  add_test(NAME model
      COMMAND ${CMAKE_SOURCE_DIR}/spec/model/run ${CMAKE_BINARY_DIR}/model)
  set_tests_properties(model PROPERTIES
      LABELS model
      TIMEOUT 900
      COST 110
      FAIL_REGULAR_EXPRESSION "FAILED")
endif()

# ---- valgrind: the host's memory ----

find_program(TIDEMILL_VALGRIND valgrind)
if(TIDEMILL_VALGRIND AND NOT TIDEMILL_SANITIZE AND NOT TIDEMILL_FUZZ)
  set(memcheck ${TIDEMILL_VALGRIND} --quiet --leak-check=full
      --errors-for-leak-kinds=definite --error-exitcode=9
      --child-silent-after-fork=yes)
  add_test(NAME valgrind_ledger COMMAND ${memcheck} $<TARGET_FILE:ledger_test> 1 20)
  add_test(NAME valgrind_wait COMMAND ${memcheck} $<TARGET_FILE:wait_test> 1 1)
  set_tests_properties(valgrind_ledger valgrind_wait PROPERTIES
      LABELS valgrind TIMEOUT 600 COST 60)
endif()
