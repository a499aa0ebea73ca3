# What is installed: the command, the libraries, the module, what finds them, and
# what tells how they are used.

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tidemill)
set(pc_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
set(generated ${CMAKE_CURRENT_BINARY_DIR}/generated)

install(TARGETS tidemill_command)
install(TARGETS tidemill_library tidemill_static
    EXPORT tidemill-targets
    FILE_SET HEADERS)
install(TARGETS tidemill_module
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/lua/5.1)

# ---- for CMake ----

configure_package_config_file(
    scripts/cmake/tidemill-config.cmake.in
    ${generated}/tidemill-config.cmake
    INSTALL_DESTINATION ${package_dir}
    NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
    ${generated}/tidemill-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES
    ${generated}/tidemill-config.cmake
    ${generated}/tidemill-config-version.cmake
    DESTINATION ${package_dir})
install(EXPORT tidemill-targets
    NAMESPACE tidemill::
    DESTINATION ${package_dir})

# ---- for pkg-config ----

# Found from where the file lies, so that the prefix may be chosen, or moved, late.
file(RELATIVE_PATH pc_to_prefix /${pc_dir} /)
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
configure_file(scripts/cmake/tidemill.pc.in ${generated}/tidemill.pc @ONLY)
install(FILES ${generated}/tidemill.pc DESTINATION ${pc_dir})

# ---- for people, and their editors ----

set(library ${generated}/library/tidemill.lua)
add_custom_command(
    OUTPUT ${library}
    # The command is a LuaJIT as good as any; what it leaks is its exit's affair.
    COMMAND ${CMAKE_COMMAND} -E env ASAN_OPTIONS=detect_leaks=0
            $<TARGET_FILE:tidemill_command> scripts/meta
            ${library} ${TIDEMILL_LUA_MODULES}
    DEPENDS tidemill_command scripts/meta ${TIDEMILL_LUA_MODULES}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    COMMENT "Writing the API for editors"
    VERBATIM)
add_custom_target(tidemill_library_for_editors ALL DEPENDS ${library})
file(MAKE_DIRECTORY ${generated}/library)

install(FILES ${library} DESTINATION ${CMAKE_INSTALL_DATADIR}/tidemill/library)
install(FILES doc/tidemill.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES README.md CHANGELOG.md LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
