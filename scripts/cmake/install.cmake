# What is installed: the command, the libraries, the module, and what finds them.

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
