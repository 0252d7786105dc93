# `cmake --install`: the program, the library, its header, and what find_package and pkg-config read.
# The library is static, so both of them name everything it needs.
include(CMakePackageConfigHelpers)
list(JOIN MNEME_PACKAGES " " MNEME_PACKAGE_WORDS)
set(CONFIG_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/mneme)

install(TARGETS mneme EXPORT mnemeTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(TARGET mneme-cli)
  install(TARGETS mneme-cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  # The program writes its own man page and completions.
  function(mneme_says file destination)
    set(path ${CMAKE_CURRENT_BINARY_DIR}/says/${file})
    add_custom_command(OUTPUT ${path} DEPENDS mneme-cli VERBATIM
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/says
      COMMAND mneme-cli ${ARGN} > ${path})
    set_property(GLOBAL APPEND PROPERTY MNEME_SAYS ${path})
    install(FILES ${path} DESTINATION ${CMAKE_INSTALL_DATADIR}/${destination})
  endfunction()
  mneme_says(mneme.1 man/man1 man)
  mneme_says(mneme bash-completion/completions completion bash)
  mneme_says(_mneme zsh/site-functions completion zsh)
  mneme_says(mneme.fish fish/vendor_completions.d completion fish)
  get_property(said GLOBAL PROPERTY MNEME_SAYS)
  add_custom_target(says ALL DEPENDS ${said})
endif()
install(FILES include/mneme.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT mnemeTargets NAMESPACE mneme:: DESTINATION ${CONFIG_DIR})

configure_package_config_file(cmake/mnemeConfig.cmake.in cmake/mnemeConfig.cmake
                              INSTALL_DESTINATION ${CONFIG_DIR})
write_basic_package_version_file(cmake/mnemeConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cmake/mnemeConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/cmake/mnemeConfigVersion.cmake
        DESTINATION ${CONFIG_DIR})

# From lib/pkgconfig up to the prefix, so that the installed tree can be moved.
file(RELATIVE_PATH PC_ROOT /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/mneme.pc.in cmake/mneme.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cmake/mneme.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
