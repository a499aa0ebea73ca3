# The fuzz targets: spec/fuzz/NAME.c, with clang's libFuzzer. What they stand in
# for is wrapped by the linker, so that the sources are those that users run.

set(samples ${CMAKE_SOURCE_DIR}/spec/fuzz/samples.lua)
add_executable(decode_fuzz
    spec/fuzz/decode_fuzz.c $<TARGET_OBJECTS:tidemill_objects>)
target_compile_definitions(decode_fuzz PRIVATE
    "FUZZ_SAMPLES=\"${samples}\""
    "FUZZ_SHARED=\"${CMAKE_SOURCE_DIR}/spec/fuzz/corpus/shared\"")
target_link_libraries(decode_fuzz PRIVATE tidemill_flags PkgConfig::LUAJIT)
target_link_options(decode_fuzz PRIVATE
    -fsanitize=fuzzer
    LINKER:--wrap=luaL_newstate
    LINKER:--wrap=luaL_loadbufferx)

# With a seed: the same inputs each time. Twice, as there are two ways to fill a
# table, see layout.h.
foreach(way IN ITEMS direct api)
  add_test(NAME decode_fuzz_${way}
      COMMAND scripts/fuzz ${CMAKE_BINARY_DIR}
              -seed=1 -runs=${TIDEMILL_FUZZ_RUNS}
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(decode_fuzz_${way} PROPERTIES
      LABELS fuzz
      TIMEOUT 300
      RESOURCE_LOCK fuzz
      ENVIRONMENT "TIDEMILL_CODEC=${way}")
endforeach()
