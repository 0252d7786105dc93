# cmake -DIN=file -DOUT=file.c -DNAME=symbol -P embed.cmake: a file of ASCII as a C array
# that ends in NUL.
file(READ ${IN} hex HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
file(WRITE ${OUT} "extern const char ${NAME}[];\nconst char ${NAME}[] = {${bytes}0};\n")
