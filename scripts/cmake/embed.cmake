# Write Lua modules as one C file, which defines `tide_embedded_modules`.
#
#   cmake -D OUTPUT=embedded.c -D "MODULES=lua/a.lua;lua/a/b.lua" -P embed.cmake
#
# The texts are arrays of bytes rather than string literals: those are limited
# in length and would need escapes. Each ends with a NUL that its length does
# not count, so an empty file is valid C as well.

function(to_module_name out path)
  string(REGEX REPLACE "^lua/(.*)\\.lua$" "\\1" name "${path}")
  string(REPLACE "/" "." name "${name}")
  set(${out} "${name}" PARENT_SCOPE)
endfunction()

function(to_bytes out path)
  file(READ "${path}" bytes HEX)
  string(REPEAT "." 32 line)
  string(REGEX REPLACE "(${line})" "\\1\n" bytes "${bytes}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  set(${out} "${bytes}" PARENT_SCOPE)
endfunction()

set(texts "")
set(entries "")
set(index 0)
foreach(path IN LISTS MODULES)
  to_module_name(name "${path}")
  to_bytes(bytes "${path}")
  string(APPEND texts
      "static const unsigned char text_${index}[] = {\n${bytes}0x00};\n\n")
  string(APPEND entries
      "    {\"${name}\", (const char *)text_${index}, "
      "sizeof text_${index} - 1},\n")
  math(EXPR index "${index} + 1")
endforeach()

file(WRITE "${OUTPUT}" "\
/* Made from lua/ by scripts/cmake/embed.cmake. */
#include \"lua/embedded.h\"

${texts}const struct tide_embedded_module tide_embedded_modules[] = {
${entries}    {NULL, NULL, 0},
};
")
