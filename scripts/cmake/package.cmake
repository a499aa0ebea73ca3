# The Debian package, one for all: `cmake --build --preset package`.

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tidemill)
set(CPACK_PACKAGE_CONTACT "Tidemill contributors <tidemill@localhost>"
    CACHE STRING "Who answers for packages")
set(CPACK_PACKAGE_DESCRIPTION "\
Tidemill runs functions of a Lua script for many items at once, in a pool of
worker processes with a LuaJIT each. Functions travel with what they use, a
worker that dies costs one item, and results come back in order. This package
has the command, the module for programs with LuaJIT, and the C library.")
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_SOURCE_DIR}/scripts/cmake/debian.cmake)

# A library for others: what needs it depends on us, and ldconfig has to look.
set(control ${CMAKE_CURRENT_BINARY_DIR}/generated/control)
file(WRITE ${control}/shlibs
    "libtidemill ${PROJECT_VERSION_MAJOR} tidemill (>= ${PROJECT_VERSION})\n")
file(WRITE ${control}/triggers "activate-noawait ldconfig\n")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${control}/shlibs ${control}/triggers)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION interpreters)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS lua-lpeg)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS luajit)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS libluajit-5.1-dev) # for C programs

include(CPack)
