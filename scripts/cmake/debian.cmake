# Run by CPack on what it is about to pack: files as Debian wants them.

set(share ${CPACK_TEMPORARY_INSTALL_DIRECTORY}/usr/share)
file(RENAME ${share}/doc/tidemill/LICENSE ${share}/doc/tidemill/copyright)
file(RENAME ${share}/doc/tidemill/CHANGELOG.md ${share}/doc/tidemill/changelog)
execute_process(
    COMMAND gzip -9n ${share}/man/man1/tidemill.1 ${share}/doc/tidemill/changelog
    COMMAND_ERROR_IS_FATAL ANY)
